// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasefs/leasefs/pkg/config"
)

const interval = 10 * time.Second

// follower is a Source that follows a file inside a bubble, with what it logged and called.
type follower struct {
	t      *testing.T
	path   string
	source *config.Source
	refuse error // what onChange returns

	mu    sync.Mutex
	log   bytes.Buffer
	calls []*config.Config
}

func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

// follow loads a file with these connections and runs the source until the test ends.
func follow(t *testing.T, text string) *follower {
	f := &follower{t: t, path: filepath.Join(t.TempDir(), "config.yaml")}
	write(t, f.path, text)
	f.source = config.NewSource(f.path, slog.New(slog.NewTextHandler(f, nil)))
	if _, err := f.source.Load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- f.source.Run(ctx, interval, func(c *config.Config) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.calls = append(f.calls, c); f.source.Current() == c {
				t.Error("onChange must be called before the configuration is current")
			}
			return f.refuse
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

// looks lets n looks go by.
func (f *follower) looks(n int) {
	time.Sleep(time.Duration(n)*interval + time.Second)
	synctest.Wait()
}

func (f *follower) want(name string, calls, logLines int) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.source.Current().Connections[0].Name; got != name {
		f.t.Errorf("current connection %q, want %q", got, name)
	}
	if len(f.calls) != calls {
		f.t.Errorf("onChange was called %d times, want %d", len(f.calls), calls)
	}
	if got := strings.Count(f.log.String(), "\n"); got != logLines {
		f.t.Errorf("%d lines were logged, want %d:\n%s", got, logLines, f.log.String())
	}
}

func named(name string) string {
	return "connections: [{name: " + name + ", address: 'https://vault'}]\n"
}

func TestChangeIsTakenUpWithinTwoLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		f.looks(10)
		f.want("a", 0, 0)
		write(t, f.path, named("b"))
		f.looks(2)
		f.want("b", 1, 1)
		f.looks(10)
		f.want("b", 1, 1)
	})
}

// A content that is seen once only may be half of what someone is writing.
func TestHalfWrittenFileIsNotTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		for _, half := range []string{"", "connections: [{name", named("half"), named("b")} {
			write(t, f.path, half)
			f.looks(1)
			f.want("a", 0, 0)
		}
		f.looks(1)
		f.want("b", 1, 1)
	})
}

func TestBrokenEditKeepsTheOldAndSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		write(t, f.path, "connections: [{name: b}]")
		f.looks(10)
		f.want("a", 0, 1)
		if f.source.Problem() == nil || !strings.Contains(f.log.String(), "connections[0].address: is required") {
			t.Errorf("problem %v, log %s", f.source.Problem(), f.log.String())
		}
		write(t, f.path, "connections: [{name: c, port: x}]") // broken otherwise
		f.looks(10)
		f.want("a", 0, 2)
		write(t, f.path, named("d")) // mended
		f.looks(2)
		f.want("d", 1, 3)
		if f.source.Problem() != nil {
			t.Errorf("problem %v after the mending", f.source.Problem())
		}
	})
}

func TestFileThatIsGoneKeepsTheOldAndSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
		f.looks(10)
		f.want("a", 0, 1)
		write(t, f.path, named("a")) // back as it was
		f.looks(2)
		f.want("a", 1, 2)
	})
}

func TestConfigurationThatTheDaemonRefusesIsNotCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		f.refuse = errors.New("no")
		write(t, f.path, named("b"))
		f.looks(10)
		f.want("a", 1, 1)
	})
}

// A mounted ConfigMap changes by a symlink to another directory; the file's name and often its time stay.
func TestSwappedSymlinkOfAConfigMapIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"a", "b"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, name, "config.yaml"), named(name))
		}
		point := func(to string) {
			if err := os.Symlink(to, filepath.Join(dir, "tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		point("a")
		f := follow(t, named("a"))
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "..data", "config.yaml"), f.path); err != nil {
			t.Fatal(err)
		}
		f.looks(3)
		f.want("a", 0, 0)
		point("b")
		f.looks(2)
		f.want("b", 1, 1)
	})
}

func TestChangedCAFileIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _ := certificate(t)
		second, _ := certificate(t)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		write(t, ca, first)
		f := follow(t, "connections: [{name: a, address: 'https://vault', caFile: "+ca+"}]")
		write(t, ca, second)
		f.looks(2)
		f.want("a", 1, 1)
		if got := f.source.Current().Connections[0].CAPEM; string(got) != second {
			t.Error("the new certificate is not in use")
		}
		write(t, ca, "broken")
		f.looks(5)
		f.want("a", 1, 2)
	})
}

func TestCommentIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		write(t, f.path, "# a comment\n"+named("a"))
		f.looks(10)
		f.want("a", 0, 0)
	})
}

func TestStartOnlySettingKeepsItsValueAndIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, named("a"))
		write(t, f.path, named("b")+"defaults: {tokenTransport: volumeContext, publishTimeout: 30s, volumeSize: 64Ki}")
		f.looks(2)
		f.want("b", 1, 2)
		if d := f.source.Current().Defaults; d.TokenTransport != config.TokenInSecrets || d.PublishTimeout != 90*time.Second || d.VolumeSize != 64<<10 {
			t.Errorf("defaults = %+v", d)
		}
		if !strings.Contains(f.log.String(), "[defaults.publishTimeout defaults.tokenTransport]") {
			t.Errorf("log: %s", f.log.String())
		}
	})
}

func TestRunWantsALoadedSource(t *testing.T) {
	source := config.NewSource("x", slog.New(slog.DiscardHandler))
	if source.Current() != nil {
		t.Error("current before Load")
	}
	if err := source.Run(context.Background(), interval, nil); err == nil {
		t.Error("Run without Load must be an error")
	}
	if _, err := source.Load(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Load: %v", err)
	}
}
