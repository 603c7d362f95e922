package quiet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func logger(level slog.Level) (*Logger, *bytes.Buffer) {
	b := new(bytes.Buffer)
	return New(slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level}))), b
}

func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, b := logger(slog.LevelInfo)
		for i := range 1000 {
			l.Log(slog.LevelWarn, "one", "same")
			l.Log(slog.LevelWarn, "many", fmt.Sprint(i), "i", i)
		}
		if n := strings.Count(b.String(), "\n"); n != 1+Lines {
			t.Errorf("%d lines, want one of the first kind and %d of the second:\n%s", n, Lines, b)
		}
		b.Reset()
		time.Sleep(Window)
		l.Log(slog.LevelWarn, "one", "same", "a", 1)
		l.Log(slog.LevelWarn, "many", "x")
		l.Log(slog.LevelWarn, "many", "y")
		for _, want := range []string{"msg=one a=1 left_out=999\n", fmt.Sprintf("msg=many left_out=%d\n", 1000-Lines), "msg=many\n"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in:\n%s", want, b)
			}
		}
	})
}

// A window may be longer.
func TestEvery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(bytes.Buffer)
		l := Every(time.Minute, slog.New(slog.NewTextHandler(b, nil)))
		for range 121 {
			l.Log(slog.LevelWarn, "one", "same")
			time.Sleep(time.Second)
		}
		if n := strings.Count(b.String(), "\n"); n != 3 {
			t.Errorf("%d lines in two minutes and a second, want one a minute:\n%s", n, b)
		}
	})
}

// What is not logged takes no place of what is.
func TestLevel(t *testing.T) {
	t.Parallel()
	l, b := logger(slog.LevelInfo)
	l.Log(slog.LevelDebug, "m", "k")
	l.Log(slog.LevelInfo, "m", "k")
	if got := b.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "left_out") {
		t.Errorf("logged %q", got)
	}
}

// A key of a client's is not kept whole.
func TestLongKeys(t *testing.T) {
	t.Parallel()
	l, b := logger(slog.LevelInfo)
	for i := range 10 {
		l.Log(slog.LevelWarn, "m", strings.Repeat("k", 1<<20)+fmt.Sprint(i))
	}
	if n := len(l.kinds["m"].keys[0]); n > maxKey || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("a key of %d bytes, lines:\n%s", n, b)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{
		{"https://a.example", 100, "https://a.example"},
		{"歓声", 6, "歓声"},
		{"歓声", 5, "歓…"},
		{"歓声", 2, "…"},
		{"a\nb\x1b[31m\u202e", 20, `a\nb\x1b[31m\u202e`},
		{"\xff\"", 20, `\xff\"`},
		{"", 0, ""},
	} {
		if got := Cut(c.s, c.n); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add("歓\xff\x00", 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 0 || n > 1<<16 {
			return
		}
		if got := Cut(s, n); !utf8.ValidString(got) || len(got) > 6*n+len("…") || strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("Cut(%q, %d) = %q", s, n, got)
		}
	})
}

// A panic is an error; what clients do wrong is a detail, and both are bounded.
func TestHTTP(t *testing.T) {
	t.Parallel()
	l, b := logger(slog.LevelInfo)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		panic(r.URL.Query().Get("p") + strings.Repeat("x", 1<<20))
	}))
	srv.Config.ErrorLog = l.HTTP()
	srv.Start()
	for i := range 20 {
		res, err := http.Get(fmt.Sprint(srv.URL, "?p=", i))
		if err == nil {
			_ = res.Body.Close()
			t.Error("a panic is answered")
		} else if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	srv.Close()
	http.DefaultClient.CloseIdleConnections()
	if got := b.String(); strings.Count(got, "level=ERROR") != Lines || len(got) > Lines*3*maxPanic {
		t.Errorf("%d bytes, %d errors", len(got), strings.Count(got, "level=ERROR"))
	}
	b.Reset()
	l.HTTP().Println("http: TLS handshake error from 10.0.0.1:5: EOF")
	if b.Len() > 0 {
		t.Errorf("logged %s", b)
	}
	l.HTTP().Println("http: Accept error: accept4: too many open files; retrying in 5ms")
	if !strings.Contains(b.String(), "level=WARN") {
		t.Errorf("logged %q", b)
	}
}
