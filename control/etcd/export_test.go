package etcd

// MakeKeys is for tests that stand in for the user's own etcd.
var MakeKeys = makeKeys
