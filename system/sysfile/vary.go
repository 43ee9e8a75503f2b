package sysfile

import (
	"strings"

	"servent/system"
)

// AbsolutePath is a path as compare's variants have it, from the top of the file: one that begins with
// services. or x-servent. is whole already, any other is a key of the service's x-servent.
func AbsolutePath(service system.ServiceName, path string) string {
	if strings.HasPrefix(path, "services.") || strings.HasPrefix(path, "x-servent.") {
		return path
	}
	return "services." + string(service) + ".x-servent." + path
}
