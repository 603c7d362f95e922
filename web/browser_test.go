package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// newBrowser starts one Chromium for a test and its subtests; tabs are cheap.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("there is no chromium, chromium-browser or google-chrome in PATH: run make setup")
	}
	ctx, cancelTimeout := context.WithTimeout(context.Background(), 8*time.Minute)
	ctx, cancelAlloc := chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path),
		chromedp.Flag("headless", "new"),
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("no-sandbox", true),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.UserDataDir(t.TempDir()),
	)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("end the browser: %v", err)
		}
		cancel()
		cancelAlloc()
		cancelTimeout()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// tab is one page of the browser, as one kind of viewer sees it.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	errors []string // of the console
}

type view struct {
	width, height int64
	scale         float64 // 2 with half the size: a window enlarged to 200 %
	dark, reduced bool
	lang          string
}

var desktop = view{width: 1280, height: 800, scale: 1, lang: "en"}

func open(t *testing.T, browser context.Context, url string, v view) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	p := &tab{t: t, ctx: ctx}
	features := []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: map[bool]string{true: "dark", false: "light"}[v.dark]},
		{Name: "prefers-reduced-motion", Value: map[bool]string{true: "reduce", false: "no-preference"}[v.reduced]},
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(v.width, v.height, chromedp.EmulateScale(v.scale))); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatal(err)
	}
	headers := network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": v.lang}}
	if _, err := chromedp.Call(ctx, network.SetExtraHTTPHeaders, headers); err != nil {
		t.Fatal(err)
	}
	console := chromedp.Console(ctx)
	// Ends with the tab, whose end is awaited below.
	var reading sync.WaitGroup
	reading.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleException {
				p.mu.Lock()
				p.errors = append(p.errors, m.Text)
				p.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		reading.Wait()
	})
	p.goTo(url)
	return p
}

func (p *tab) goTo(url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		p.t.Fatalf("open %s: %v", url, err)
	}
}

// eval evaluates an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := tryEval[T](p, expression)
	if err != nil {
		p.t.Fatalf("evaluate %.200s: %v", expression, err)
	}
	return v
}

func tryEval[T any](p *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, 60*time.Second)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// wait waits until an expression is true in the page, which may be loading.
func (p *tab) wait(expression string) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, err := tryEval[bool](p, "Boolean("+expression+")")
		if ok && err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := tryEval[string](p, "document.body.innerText") // for the message below
			p.t.Fatalf("this does not come true: %s\nlast error: %v\npage: %s\nconsole: %v", expression, err, text, p.consoleErrors())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) click(id string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.ID(id)))
}

func (p *tab) consoleErrors() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.errors...)
}

// clean fails the test if the page has complained: a breach of its own policy, say.
func (p *tab) clean() {
	p.t.Helper()
	for _, e := range p.consoleErrors() {
		p.t.Errorf("console: %s", e)
	}
}

const live = `document.getElementById("link").dataset.state === "live"`

// shoot keeps a picture of the page in the directory KANSEI_SHOTS, if it is set.
func (p *tab) shoot(name string) {
	p.t.Helper()
	dir := os.Getenv("KANSEI_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Fatalf("screenshot: %v", err)
	}
}

// trace is a stretch of real comments out of the file KANSEI_TRACE, or of ones
// like them.
func trace(t *testing.T, n int) []protocol.Comment {
	t.Helper()
	name := os.Getenv("KANSEI_TRACE")
	if name == "" {
		return invented(n)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var out []protocol.Comment
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(out) < n {
		var in struct{ Text, Color, Size, Position string }
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.ContainsFunc(in.Text, func(r rune) bool { return r >= 0x80 && r < 0xa0 }) {
			continue // text that was decoded twice
		}
		out = append(out, protocol.Comment{Text: in.Text, Style: &protocol.Style{Position: in.Position, Size: in.Size, Color: colorOf[in.Color]}})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

var colorOf = map[string]string{
	"white": "#ffffff", "black": "#000000", "red": "#ff0000", "pink": "#ff8080", "orange": "#ffcc00",
	"yellow": "#ffff00", "green": "#00ff00", "cyan": "#00ffff", "blue": "#0000ff", "purple": "#c000ff",
}

func invented(n int) []protocol.Comment {
	texts := []string{
		"うぽつ", "88888888", "www", "ここすき", "きたあああああああ", "GG", "すごい！！！", "おつかれさまでした", "😂😂😂", "Hello from Lisbon 🇵🇹",
		"ｷﾀ━━━(ﾟ∀ﾟ)━━━!!", "伝説の始まり", "👏👏👏", "初見です", "なるほど", "わこつ", "神回", "それな", "鳥肌たった", "مرحبا", "かわいい 🥰",
		"もう一回！もう一回！", "  ██\n█  █\n  █ \n████", "最高のアンコール", "(*´ω｀*)", "えええええ", "音がいい", "Bravo!",
	}
	colors := []string{"", "", "", "", "", "#ff8080", "#ffff00", "#00ffff", "#00ff00", "#ffcc00", "#ff0000", "#c000ff"}
	sizes := []string{"", "", "", "", "big", "small"}
	positions := []string{"", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "top", "bottom"}
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]protocol.Comment, n)
	for i := range out {
		id := r.IntN(400)
		out[i] = protocol.Comment{
			Text:  texts[r.IntN(len(texts))],
			User:  protocol.User{ID: fmt.Sprintf("u%d", id), Name: names[id%len(names)]},
			Style: &protocol.Style{Position: positions[r.IntN(len(positions))], Size: sizes[r.IntN(len(sizes))], Color: colors[r.IntN(len(colors))]},
		}
	}
	return out
}

var names = []string{"さくら", "けんじ", "yui", "Miguel", "たなか", "のら猫", "Sofia", "mochi", "はるか", "夜更かし", "Lin", "太郎"}
