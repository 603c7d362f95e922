// Shots takes the pictures of the documents: it starts a node, plays an audience
// into it, and photographs the viewer page in Chromium.
//
//	go run ./test/shots -kansei bin/kansei -out docs -trace comments.ndjson
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/internal/demo"
)

var (
	kansei = flag.String("kansei", "bin/kansei", "the program")
	out    = flag.String("out", "docs", "the directory of the pictures")
	trace  = flag.String("trace", os.Getenv("KANSEI_TRACE"), "comments to play, JSON lines with media_ms; empty: the demo crowd alone")
	from   = flag.Duration("from", 0, "where in the trace to begin")
	length = flag.Duration("length", 7*time.Second, "how much of it to play before the picture")
)

const (
	listen = "127.0.0.1:18080"
	base   = "http://" + listen
	secret = "the secret of a node that lives for a picture"
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := shoot(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "shots:", err)
		os.Exit(1)
	}
}

func shoot(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kansei-shots-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	node := exec.CommandContext(ctx, *kansei, "serve", "--demo", "--listen="+listen, "--ops-listen=127.0.0.1:18081",
		"--data-dir="+dir, "--rate-staff=1000", "--burst-staff=2000", "--log-level=warn")
	node.Env = append(os.Environ(), "KANSEI_AUTH_SECRET="+secret)
	node.Stderr = os.Stderr
	node.Cancel = func() error { return node.Process.Signal(os.Interrupt) }
	if err := node.Start(); err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = node.Wait() // ended by the signal
	}()
	if err := await(ctx, "http://127.0.0.1:18081/readyz"); err != nil {
		return err
	}

	alloc, cancelAlloc := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("lang", "en"),
		chromedp.Flag("disable-background-networking", true), chromedp.UserDataDir(filepath.Join(dir, "browser")))...)
	defer cancelAlloc()
	tab, cancelTab := chromedp.NewContext(alloc)
	defer cancelTab()
	if err := chromedp.Do(tab, chromedp.EmulateViewport(1280, 800, chromedp.EmulateScale(1)), chromedp.Navigate(base+"/")); err != nil {
		return err
	}
	if err := play(ctx); err != nil {
		return err
	}
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*out, "viewer.png"), png, 0o644)
}

func await(ctx context.Context, url string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return errors.New("the node is not ready")
}

// line is one comment of a trace.
type line struct {
	MediaMS  int64  `json:"media_ms"`
	Text     string `json:"text"`
	Position string `json:"position"`
	Size     string `json:"size"`
	Color    string `json:"color"`
}

// play publishes a stretch of the trace at its own pace, under the names of the
// demo crowd; without a trace it gives the crowd the time.
func play(ctx context.Context) error {
	if *trace == "" {
		time.Sleep(*length)
		return nil
	}
	f, err := os.Open(*trace)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	token, err := exec.CommandContext(ctx, *kansei, "token", "--room=lobby", "--user=player", "--role=broadcaster", "--can=publish_as", "--auth-secret="+secret).Output()
	if err != nil {
		return fmt.Errorf("kansei token: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	start, n := time.Now(), 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return err
		}
		if strings.ContainsFunc(l.Text, func(r rune) bool { return r >= 0x80 && r < 0xa0 }) {
			continue // spoilt when it was recorded: UTF-8 taken for Latin-1
		}
		at := time.Duration(l.MediaMS)*time.Millisecond - *from
		if at < 0 {
			continue
		}
		if at > *length {
			break
		}
		time.Sleep(time.Until(start.Add(at)))
		n++
		wg.Go(func() { post(ctx, strings.TrimSpace(string(token)), l, n) }) // ends with the answer
	}
	return nil
}

func post(ctx context.Context, token string, l line, n int) {
	style := map[string]string{}
	for k, v := range map[string]string{"position": l.Position, "size": l.Size, "color": l.Color} {
		if v != "" {
			style[k] = v
		}
	}
	body, _ := json.Marshal(map[string]any{
		"text": l.Text, "media_ms": l.MediaMS, "style": style,
		"user": map[string]string{"id": fmt.Sprint("u", n), "name": demo.Name(n * 7)},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/rooms/lobby/comments", bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
	}
}
