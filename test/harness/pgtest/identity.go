// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// identity is the user that PostgreSQL runs as. Its programs refuse uid 0, so:
//
//  1. Who is not root runs them as himself.
//  2. Root runs them as postgres or, where the package made no such user, as nobody.
//  3. Root inside `unshare -Ur` cannot become anyone: that user namespace has uid 0 and no other. There the programs
//     get one more user namespace, in which our own uid has the number of postgres or nobody. To the kernel outside it
//     is the same user as before, so files need no change of owner.
//
// A change of user is tried first because a system may forbid further user namespaces.
type identity struct {
	uid, gid int
	mode     mode
}

type mode int

const (
	asSelf   mode = iota // 1
	asOther              // 2
	renumber             // 3
)

func newIdentity() (identity, error) {
	if os.Geteuid() != 0 {
		return identity{mode: asSelf}, nil
	}
	uid, gid, err := unprivileged()
	if err != nil {
		return identity{}, err
	}
	id := identity{uid: uid, gid: gid, mode: asOther}
	probe := exec.Command("/bin/true")
	id.apply(probe, "/")
	if probe.Run() == nil {
		return id, nil
	}
	id.mode = renumber
	probe = exec.Command("/bin/true")
	id.apply(probe, "/")
	if err := probe.Run(); err != nil {
		return identity{}, fmt.Errorf("PostgreSQL refuses to run as root, and neither becoming uid %d nor a further user namespace is "+
			"possible here (%w); start it before entering the user namespace", uid, err)
	}
	return id, nil
}

// unprivileged returns the ids to run as. The user must have a name: initdb asks for it.
func unprivileged() (uid, gid int, err error) {
	var u *user.User
	for _, name := range []string{"postgres", "nobody"} {
		if u, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("finding a user for PostgreSQL, which refuses to run as root: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, fmt.Errorf("the uid of %s: %w", u.Username, err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, fmt.Errorf("the gid of %s: %w", u.Username, err)
	}
	return uid, gid, nil
}

// apply makes cmd run as the identity, in dir: a folder that it may enter, unlike perhaps our own.
func (id identity) apply(cmd *exec.Cmd, dir string) {
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	switch id.mode {
	case asSelf:
	case asOther:
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}}
	case renumber:
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: id.uid, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: id.gid, HostID: os.Getgid(), Size: 1}},
		}
	}
}

// own gives a file of ours to the identity, where that is another user.
func (id identity) own(path string) error {
	if id.mode != asOther {
		return nil
	}
	if err := os.Chown(path, id.uid, id.gid); err != nil {
		return fmt.Errorf("giving a file to PostgreSQL's user: %w", err)
	}
	return nil
}
