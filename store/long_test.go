package store

import "os"

// longTests says that tests may take minutes: `make long` sets SERVENT_LONG.
func longTests() bool { return os.Getenv("SERVENT_LONG") != "" }
