// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// When the acts begin, from the moment at which the pod's volume is there. Between them the daemon acts by itself.
const (
	changeAt = 3 * time.Second
	killAt   = 16 * time.Second
	downFor  = 1500 * time.Millisecond
)

// story is the running demo.
type story struct {
	*stage
	screen *screen
	probe  *probe
	checks []check
}

func (t *story) check(what string, err error) { t.checks = append(t.checks, check{what, err}) }

// tell runs the acts one after the other, while the pod uses its files and the daemon's doings are shown. An error is
// about the demo itself; what did not happen as it should is a check that failed, and one error in the end.
func tell(ctx context.Context, s *screen, st *stage, keep bool) error {
	t := &story{stage: st, screen: s, probe: newProbe(st)}
	if err := t.publish(ctx); err != nil {
		return err
	}
	if err := t.meanwhile(ctx, func(ctx context.Context) error { return t.live(ctx, keep) }); err != nil {
		return err
	}
	if !s.verdict(t.checks) {
		s.title("The daemon's last lines")
		s.text("%s", lastLines(st.driver.Log(), 30))
		return errNotAll
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// publish mounts the pod's volume and shows it.
func (t *story) publish(ctx context.Context) error {
	t.screen.title("2. A pod wants these files")
	t.screen.text("%s", t.objects())
	t.screen.title("3. The kubelet publishes the pod's volume")
	t.screen.start()
	begin := time.Now()
	if err := t.kubelet.Publish(ctx, t.volume); err != nil {
		return fmt.Errorf("publishing the volume: %w; the daemon's last lines:\n%s", err, lastLines(t.driver.Log(), 30))
	}
	took := time.Since(begin)
	t.screen.start()
	snap, err := t.probe.read(time.Now())
	t.check(fmt.Sprintf("the volume was there complete, after %d ms", took.Milliseconds()), err)
	t.check("the pod cannot write to it", refusesWrites(t.target))
	t.screen.text("%s (a tmpfs, read-only; after %d ms)", t.target, took.Milliseconds())
	t.screen.text("%s", tree(t.target))
	t.screen.text("greeting says %q", snap.greeting)
	return nil
}

// refusesWrites tries to write a file as root.
func refusesWrites(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "intruder"), nil, 0o600)
	switch {
	case errors.Is(err, syscall.EROFS):
		return nil
	case err == nil:
		return errors.New("root could write a file")
	default:
		return fmt.Errorf("writing a file failed, but not because it is read-only: %w", err)
	}
}

// tree lists a volume as a person would want to see it.
func tree(target string) string {
	var b strings.Builder
	err := filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == target {
			return err
		}
		rel, err := filepath.Rel(target, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%04o", info.Mode().Perm())
		switch {
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what = "→ " + link
		case d.IsDir():
			rel += "/"
		default:
			what += fmt.Sprintf("  %d bytes", info.Size())
		}
		depth := strings.Count(strings.TrimSuffix(rel, "/"), "/")
		name := strings.Repeat("  ", depth) + filepath.Base(rel)
		if d.IsDir() {
			name += "/"
		}
		fmt.Fprintf(&b, "  %-36s %s\n", name, what)
		return nil
	})
	if err != nil {
		fmt.Fprintf(&b, "  %v\n", err)
	}
	return b.String()
}

// meanwhile runs acts while the audit log is shown, to its last line.
func (t *story) meanwhile(ctx context.Context, acts func(context.Context) error) error {
	t.screen.title("4. What happens now, live (seconds since the volume is there)")
	group, ctx := errgroup.WithContext(ctx)
	showing, done := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return follow(showing, t.screen, t.driver, t.probe) })
	group.Go(func() error {
		defer done()
		return acts(ctx)
	})
	return group.Wait()
}

// live is the pod's life, from the first look at its files to the last lease.
func (t *story) live(ctx context.Context, keep bool) error {
	begin := time.Now()
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		t.probe.run(probing)
	}()

	if err := sleep(ctx, changeAt); err != nil {
		return err
	}
	if err := t.change(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, killAt-time.Since(begin)); err != nil {
		return err
	}
	if err := t.kill(ctx); err != nil {
		return err
	}
	t.rotated(ctx)
	stopProbing()
	<-probed
	if err := ctx.Err(); err != nil {
		return err
	}
	t.checks = append(t.checks, t.probe.verdict())
	if err := t.counted(); err != nil {
		return err
	}
	if keep {
		if err := t.stay(ctx); err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx) // Ctrl-C has ended the stay, and nothing else
	}
	return t.unpublish(ctx)
}

// change writes a new value in Vault and waits until the pod has it.
func (t *story) change(ctx context.Context) error {
	const value = "good evening"
	t.screen.now(you, "write another greeting in Vault: %q (the daemon looks every %s)", value, refresh)
	if err := t.vault.WriteKV2(ctx, "secret", "app", map[string]any{"greeting": value}); err != nil {
		return err
	}
	begin := time.Now()
	err := t.await(ctx, refresh+3*time.Second, func() error {
		if got := t.probe.current().greeting; got != value {
			return fmt.Errorf("the pod still reads %q", got)
		}
		return nil
	})
	t.check(fmt.Sprintf("a changed value reached the pod after %.1f s", time.Since(begin).Seconds()), err)
	return nil
}

// kill ends the daemon without warning and starts it again.
func (t *story) kill(ctx context.Context) error {
	held, err := t.held(ctx)
	if err != nil {
		return err
	}
	mark := t.vault.Mark()
	generation := t.probe.current().generation
	t.screen.now(you, "kill -9 the daemon")
	if err := t.driver.Kill(); err != nil {
		return err
	}
	if err := sleep(ctx, downFor/2); err != nil {
		return err
	}
	_, err = t.probe.read(time.Now())
	t.check("with the daemon dead, the pod's files stay", err)
	if err == nil {
		t.screen.now(pod, "the files are still there, and good")
	}
	if err := sleep(ctx, downFor/2); err != nil {
		return err
	}
	begin := time.Now()
	if err := t.restart(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	t.screen.now(kubelet, "the daemon is back, after %d ms; the kubelet publishes the volume again", took.Milliseconds())
	after, err := t.probe.read(time.Now())
	if err == nil && after.generation != generation {
		err = fmt.Errorf("generation %s before, %s after", generation, after.generation)
	}
	t.check("a new daemon took the volume over and changed nothing", err)
	t.check("publishing a healthy volume again is fine", t.kubelet.Publish(ctx, t.volume))
	return t.sameSession(ctx, mark, held)
}

// held is what Vault holds for the pod: the accessors of its tokens and the ids of its leases.
func (t *story) held(ctx context.Context) ([]string, error) {
	tokens, err := t.vault.TokenAccessors(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := t.vault.Leases(ctx, "")
	return append(tokens, leases...), err
}

// sameSession checks that the daemon goes on with the token and the leases that there were before.
func (t *story) sameSession(ctx context.Context, mark vaulttest.Mark, before []string) error {
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	requests, err := t.vault.Requests(mark)
	if err != nil {
		return err
	}
	after, err := t.held(ctx)
	if err != nil {
		return err
	}
	logins := requests.Count("auth/jwt/login")
	var problem error
	if logins != 0 || !slices.Equal(before, after) {
		problem = fmt.Errorf("%d logins; Vault held %q before and holds %q now", logins, before, after)
	}
	t.check("it went on with the same token and the same leases, without a new login", problem)
	if problem == nil {
		t.screen.now(vault, "saw no new login: the token and the leases are the ones from before")
	}
	return nil
}

// rotated waits until the certificate was replaced and, where there is a database, a user has reached its maximum and
// made room for the next.
func (t *story) rotated(ctx context.Context) {
	err := t.await(ctx, 2*certificateTTL, func() error {
		if certificates, _ := t.probe.seen(); certificates < 2 {
			return errors.New("the pod has the first one still")
		}
		return nil
	})
	t.check("the certificate was replaced before it expired", err)
	if t.pg == nil {
		return
	}
	err = t.await(ctx, userMaxTTL, func() error {
		if _, users := t.probe.seen(); users < 2 {
			return errors.New("the pod has the first one still")
		}
		return nil
	})
	t.check("the database user was replaced before its maximum of "+userMaxTTL.String(), err)
	if err != nil {
		return
	}
	err = t.await(ctx, 15*time.Second, func() error {
		have, err := t.pg.Users(ctx)
		if err == nil && len(have) != 1 {
			err = fmt.Errorf("PostgreSQL has the users %q", have)
		}
		return err
	})
	t.check("the old user was dropped after the change-over", err)
	if err == nil {
		t.screen.now(vault, "has dropped the old user in PostgreSQL")
	}
}

// counted checks what the daemon has done by the logs of both sides.
func (t *story) counted() error {
	requests, err := t.vault.Requests(0)
	if err != nil {
		return err
	}
	lines, err := t.driver.Audit()
	if err != nil {
		return err
	}
	atLeast := func(n, least int) error {
		if n < least {
			return fmt.Errorf("%d is too few", n)
		}
		return nil
	}
	tokens, leases := requests.Count("auth/token/renew-self"), requests.Count("sys/leases/renew")
	t.check(fmt.Sprintf("Vault says: the token was renewed %d times", tokens), atLeast(tokens, 1))
	if t.pg != nil {
		t.check(fmt.Sprintf("Vault says: the database user's lease was renewed %d times", leases), atLeast(leases, 2))
	}
	logins := requests.Count("auth/jwt/login")
	var tooMany error
	if logins != 1 {
		tooMany = fmt.Errorf("there were %d", logins)
	}
	t.check("Vault says: one login for all of it", tooMany)
	swaps := len(lines.Of(rotation.AuditSwap))
	t.check(fmt.Sprintf("the files were swapped %d times, each time all at once", swaps), atLeast(swaps, 2))
	return nil
}

// unpublish ends the pod, and looks for what is left of it.
func (t *story) unpublish(ctx context.Context) error {
	t.screen.now(kubelet, "the pod is deleted: the kubelet unpublishes its volume")
	err := t.kubelet.Unpublish(ctx, t.volume)
	if err == nil {
		var mounts []string
		if mounts, err = t.driver.Volumes(); err == nil && len(mounts) > 0 {
			err = fmt.Errorf("still mounted: %q", mounts)
		}
	}
	t.check("after the pod: no mount and no directory is left on the node", err)

	soon, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = t.vault.AwaitEmpty(soon)
	t.check("no lease and no token is left in Vault", err)
	if err == nil {
		t.screen.now(vault, "has zero leases and zero tokens left")
	}
	if t.pg != nil {
		err := t.await(soon, 10*time.Second, func() error {
			users, err := t.pg.Users(soon)
			if err == nil && len(users) > 0 {
				err = fmt.Errorf("still there: %q", users)
			}
			return err
		})
		t.check("no user is left in PostgreSQL", err)
	}
	return sleep(ctx, 100*time.Millisecond) // for the last line of the audit log
}

// stay waits for Ctrl-C, and is the node meanwhile: it publishes again, and starts a daemon that has died.
func (t *story) stay(ctx context.Context) error {
	t.screen.title("KEEP=1: it all stays until you press Ctrl-C. In another terminal:")
	t.screen.text("%s", t.lookAround())
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.driver.Exited():
			err := t.restart(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			t.screen.now(kubelet, "the daemon has ended, and was started again as process %d", t.driver.PID())
		case <-tick.C:
			if err := t.kubelet.Publish(ctx, t.volume); err != nil && ctx.Err() == nil {
				t.screen.now(kubelet, "publishing again: %v", err)
			}
		}
	}
}

// await calls good until it returns nil, for at most patience; then its last error is returned.
func (t *story) await(ctx context.Context, patience time.Duration, good func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := good()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
