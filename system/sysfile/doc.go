// Package sysfile turns a user's file into a [system.System]: a Compose file, merged by the reference
// library compose-go, with what Compose has no word for under x-servent. Every mistake is found in one
// reading, each with its file, line and column; what Compose knows and Servent does not act on becomes
// a note, never silence.
//
// It reads files (the system file, what it includes and extends, .env and env_file) and nothing else:
// it never builds, starts, fetches or writes. Whether a program exists is for launch to find out.
//
// A file goes through four stages, one noun each: source (text into YAML nodes, with includes and
// extends), walk (nodes against the schema of system/sysfile/schema, mistakes pruned so that the rest can still be read),
// compose-go (interpolation, merge, profiles) and reading (the merged model into words of package
// system, then the checks that need more than one value). How a single value is written is for
// system/notation. How one value in a text is changed is for system/sysfile/edit. Start at [Load].
package sysfile
