package main

// answer is what everybody gets.
const answer = "pong"
