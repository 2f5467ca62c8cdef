// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// unit is one program to run.
type unit struct {
	Name  string
	Args  []string
	Flags uintptr // namespaces of its own: syscall.CLONE_NEW*
}

// status is what a supervisor tells on its socket. Pids are those of the supervisor's own process namespace.
type status struct {
	Steps []string       // what was done, with its time
	Ready bool           // all steps are done
	Error string         // why they will not be
	Units map[string]int // running units
}

// supervisor is the first process of a process namespace. It starts units, reaps every process that loses its parent, and
// takes orders on a Unix socket. It restarts nothing by itself: a test that kills the kubelet wants it dead.
type supervisor struct {
	layout layout
	since  time.Time

	mu      sync.Mutex
	status  status
	exits   map[int]chan syscall.WaitStatus // by pid: who waits for it
	running map[string]*process
}

type process struct {
	pid  int
	done chan struct{} // closed after it was reaped
	exit syscall.WaitStatus
}

func newSupervisor(l layout) *supervisor {
	return &supervisor{
		layout:  l,
		since:   time.Now(),
		exits:   map[int]chan syscall.WaitStatus{},
		running: map[string]*process{},
	}
}

// serve runs the steps once, then obeys until the process is killed: a supervisor has no end of its own.
func (s *supervisor) serve(socket string, steps func(context.Context) error, more map[string]func(context.Context) error) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	go func() {
		for {
			s.reap()
			<-children
		}
	}()
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ctx := context.Background()
	go func() {
		err := steps(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.status.Ready = err == nil
		if err != nil {
			s.status.Error = err.Error()
		}
	}()
	return http.Serve(listener, s.handler(more))
}

func (s *supervisor) handler(more map[string]func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.snapshot())
	})
	order := func(path string, do func(*http.Request) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := do(r); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		})
	}
	order("/start", func(r *http.Request) error { return s.startNamed(r.FormValue("unit")) })
	order("/stop", func(r *http.Request) error {
		return s.stop(r.Context(), r.FormValue("unit"), r.FormValue("signal") == "KILL")
	})
	for name, do := range more {
		order("/"+name, func(r *http.Request) error { return do(r.Context()) })
	}
	return mux
}

func (s *supervisor) snapshot() status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Steps = append([]string(nil), s.status.Steps...)
	out.Units = map[string]int{}
	for name, p := range s.running {
		out.Units[name] = p.pid
	}
	return out
}

// step records what was done and when.
func (s *supervisor) step(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Steps = append(s.status.Steps, fmt.Sprintf("%5.1f s  ", time.Since(s.since).Seconds())+fmt.Sprintf(format, args...))
}

func (s *supervisor) startNamed(name string) error {
	for _, u := range units(s.layout) {
		if u.Name == name {
			return s.start(u)
		}
	}
	return fmt.Errorf("no unit is called %q", name)
}

// start runs a unit; its output goes to its log, after what is there.
func (s *supervisor) start(u unit) error {
	s.mu.Lock()
	_, runs := s.running[u.Name]
	s.mu.Unlock()
	if runs {
		return fmt.Errorf("%s runs already", u.Name)
	}
	pid, exit, err := s.spawn(u)
	if err != nil {
		return fmt.Errorf("starting %s: %w", u.Name, err)
	}
	p := &process{pid: pid, done: make(chan struct{})}
	s.mu.Lock()
	s.running[u.Name] = p
	s.mu.Unlock()
	go func() {
		p.exit = <-exit
		s.mu.Lock()
		delete(s.running, u.Name)
		s.mu.Unlock()
		fmt.Printf("%s %s ended: %s\n", time.Now().Format(time.TimeOnly), u.Name, describe(p.exit))
		close(p.done)
	}()
	return nil
}

// spawn starts a process whose end is told on the channel. The lock is held over the start, or the process could be
// reaped before anybody waits for it.
func (s *supervisor) spawn(u unit) (int, <-chan syscall.WaitStatus, error) {
	log, err := os.OpenFile(s.layout.log(u.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := os.StartProcess(u.Args[0], u.Args, &os.ProcAttr{
		Dir:   "/",
		Env:   append(s.layout.environ(), partOf+"="+s.layout.Run),
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: u.Flags},
	})
	if err != nil {
		return 0, nil, err
	}
	pid := p.Pid
	_ = p.Release()
	exit := make(chan syscall.WaitStatus, 1)
	s.exits[pid] = exit
	return pid, exit, nil
}

// run runs a short program to its end; its output goes to the log called name.
func (s *supervisor) run(name string, args ...string) error {
	_, exit, err := s.spawn(unit{Name: name, Args: args})
	if err != nil {
		return err
	}
	if e := <-exit; e != 0 {
		return fmt.Errorf("%s: %s, see %s", strings.Join(args, " "), describe(e), s.layout.log(name))
	}
	return nil
}

func (s *supervisor) stop(ctx context.Context, name string, kill bool) error {
	s.mu.Lock()
	p := s.running[name]
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s does not run", name)
	}
	sig := syscall.SIGTERM
	if kill {
		sig = syscall.SIGKILL
	}
	if err := syscall.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("stopping %s: %w", name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping %s: %w", name, ctx.Err())
	}
}

// reap collects every process that has ended: units, short programs, and orphans such as a container's shim.
func (s *supervisor) reap() {
	for {
		s.mu.Lock()
		var exit syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &exit, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			s.mu.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			s.mu.Unlock()
			return
		}
		if waiter, ok := s.exits[pid]; ok {
			delete(s.exits, pid)
			waiter <- exit
		}
		s.mu.Unlock()
	}
}

func describe(e syscall.WaitStatus) string {
	if e.Signaled() {
		return "killed by " + e.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.ExitStatus())
}

// errEnded is what a check says of something that will not come.
var errEnded = errors.New("it has ended")

// waitFor asks check about 20 times a second until it says nil. It gives up when the unit that it waits for has ended.
func (s *supervisor) waitFor(ctx context.Context, what, needs string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		err := check(attempt)
		stop()
		if err == nil {
			return nil
		}
		if errors.Is(err, errEnded) {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if _, runs := s.snapshot().Units[needs]; !runs {
			return fmt.Errorf("waiting for %s: %s has ended, see %s", what, needs, s.layout.log(needs))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %w)", what, ctx.Err(), err)
		}
	}
}

// ask sends one order to the supervisor behind a socket.
func ask(ctx context.Context, socket, method, path string, into any) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+filepath.Base(socket)+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
