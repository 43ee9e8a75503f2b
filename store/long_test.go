package store

import (
	"os"
)

// longTests says that tests may take minutes: `make long` sets SERVENT_LONG.
var longTests = os.Getenv("SERVENT_LONG") != ""
