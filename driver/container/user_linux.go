package container

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"servent/driver"
)

// account is who runs in a container.
type account struct {
	specs.User
	home string
}

// user reads NAME, NUMBER, NAME:GROUP as Docker does: names by /etc/passwd and /etc/group of the image, and a
// user without a group gets those that the image gives it.
func user(root *os.Root, said string) (account, error) {
	who, group, grouped := strings.Cut(said, ":")
	if who == "" {
		who = "0"
	}
	a := account{home: "/"}
	number, err := strconv.ParseUint(who, 10, 32)
	known, name := err == nil, who
	a.UID = uint32(number)
	err = records(root, "etc/passwd", func(f []string) {
		if len(f) < 6 || f[0] != who && f[2] != who {
			return
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 == nil && err2 == nil {
			a.UID, a.GID, known, name = uint32(uid), uint32(gid), true, f[0]
			if f[5] != "" {
				a.home = f[5]
			}
		}
	})
	if err != nil {
		return a, err
	}
	if !known {
		return a, fmt.Errorf("%w: user %q is not in the image's /etc/passwd", driver.ErrArtifact, who)
	}
	number, err = strconv.ParseUint(group, 10, 32)
	found := !grouped || err == nil
	if grouped && err == nil {
		a.GID = uint32(number)
	}
	err = records(root, "etc/group", func(f []string) {
		if len(f) < 3 {
			return
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		switch {
		case err != nil:
		case grouped && f[0] == group:
			a.GID, found = uint32(gid), true
		case !grouped && len(f) > 3 && listed(f[3], name):
			a.AdditionalGids = append(a.AdditionalGids, uint32(gid))
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: group %q is not in the image's /etc/group", driver.ErrArtifact, group)
	}
	return a, err
}

func listed(members, name string) bool {
	for m := range strings.SplitSeq(members, ",") {
		if m == name {
			return true
		}
	}
	return false
}

// records reads a file of lines with fields between colons; an image without it has none.
func records(root *os.Root, name string, each func([]string)) error {
	dir, err := within(root, path.Dir(name), func(string) error { return fs.ErrNotExist })
	var f *os.File
	if err == nil {
		f, err = root.Open(path.Join(dir, path.Base(name)))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("/%s of the image: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan() && n < 100_000; n++ {
		each(strings.Split(lines.Text(), ":"))
	}
	return lines.Err()
}
