// Package demo is the crowd of `kansei serve --demo`: viewers that connect to the
// node like anybody else, and cheer, so that a newcomer's first page is alive.
package demo

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// Config says where the crowd goes.
type Config struct {
	URL  string // of the node
	Room string
	Size int // viewers
	// Token mints a viewer's token.
	Token  func(user, name string) (string, error)
	Logger *slog.Logger
}

// Crowd is a running crowd.
type Crowd struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Start sends a crowd into a room. It stays until Stop, or until ctx ends.
func Start(ctx context.Context, cfg Config) *Crowd {
	ctx, cancel := context.WithCancel(ctx)
	c := &Crowd{cancel: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	var once sync.Once // what has sent one away has sent the others, too
	for i := range cfg.Size {
		// Ends with ctx; the goroutine below waits for it.
		wg.Go(func() {
			if err := visit(ctx, cfg, i); err != nil && ctx.Err() == nil {
				once.Do(func() {
					cfg.Logger.Warn("viewers of the demo crowd (--demo) are sent away, and do not come back: the comments of the demo become fewer, nobody else is concerned",
						"error", err)
				})
			}
		})
	}
	go func() { // ends when every viewer has
		wg.Wait()
		close(c.done)
	}()
	return c
}

// Stop sends the crowd home and waits until it is gone.
func (c *Crowd) Stop() {
	c.cancel()
	<-c.done
}

// Running reports whether the crowd has not been sent home.
func (c *Crowd) Running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// visit is one viewer's evening.
func visit(ctx context.Context, cfg Config, i int) error {
	c, err := client.New(client.Config{URLs: []string{cfg.URL}, Room: cfg.Room, Token: func(context.Context) (string, error) {
		return cfg.Token(fmt.Sprintf("demo-%d", i), Name(i)) // a demo may go on for longer than a token
	}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { cheer(ctx, c) }) // ends with ctx
	return c.Run(ctx)
}

// cheer comments at random moments, more often while the show is exciting.
func cheer(ctx context.Context, c *client.Client) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	start := time.Now()
	for n := int64(0); ; n++ {
		// Excitement comes and goes within a minute, for everybody at once.
		wave := 1 + math.Sin(float64(time.Now().UnixMilli())/60_000*2*math.Pi)
		pause := time.Duration((1.5 + rng.ExpFloat64()*6/(0.5+wave)) * float64(time.Second))
		select {
		case <-time.After(min(pause, time.Minute)):
		case <-ctx.Done():
			return
		}
		media := time.Since(start).Milliseconds()
		bounded, cancel := context.WithTimeout(ctx, 15*time.Second)
		// What the server does not take is not worth a second try: it is a demo.
		_, _ = c.Comment(bounded, protocol.CommentRequest{Text: say(rng), Style: style(rng), MediaMS: &media})
		cancel()
	}
}

func say(rng *rand.Rand) string {
	switch rng.IntN(10) {
	case 0, 1:
		return repeat("8", 4+rng.IntN(10))
	case 2:
		return repeat("w", 3+rng.IntN(9))
	case 3:
		return repeat([]string{"👏", "🎉", "✨", "🔥", "😂"}[rng.IntN(5)], 1+rng.IntN(5))
	}
	return phrases[rng.IntN(len(phrases))]
}

func repeat(s string, n int) string {
	out := ""
	for range n {
		out += s
	}
	return out
}

// style leaves most comments plain.
func style(rng *rand.Rand) *protocol.Style {
	s := protocol.Style{}
	if rng.IntN(4) == 0 {
		s.Color = []string{"#ff8080", "#ffcc00", "#ffff00", "#00ff00", "#00ffff", "#c0a0ff"}[rng.IntN(6)]
	}
	switch rng.IntN(12) {
	case 0:
		s.Size = "big"
	case 1:
		s.Size = "small"
	}
	switch rng.IntN(16) {
	case 0:
		s.Position = "top"
	case 1:
		s.Position = "bottom"
	}
	if s == (protocol.Style{}) {
		return nil
	}
	return &s
}

// Name is the name of the crowd's i-th viewer.
func Name(i int) string { return names[i%len(names)] }

var names = []string{
	"さくら", "ゆうき", "Mio", "たけし", "Alex", "はな", "りん", "Chris", "そら", "みお", "Kai", "あおい",
	"Noa", "ひなた", "Leo", "まこと", "Emma", "つばさ", "Sam", "ことね", "Riku", "なぎ", "Lena", "かえで",
}

var phrases = []string{
	"こんばんは！", "きたああああ", "初見です", "うぽつ", "かわいい", "すごい！！", "ここ好き", "なるほど", "待ってました",
	"神回", "音量ちょうどいい", "おかえりなさい", "それな", "天才か", "え、まって", "いい声だ", "鳥肌たった", "もう一回！",
	"(^o^)ノ", "キタ━━━(゜∀゜)━━━!!", "ヽ(´ー｀)ノ", "おつかれさま", "ありがとう", "泣いた", "これは名曲", "質問いいですか？",
	"hello from Berlin", "first time here!", "love this part", "so good", "encore!", "what song is this?", "bravo 👏",
	"Hola a todos", "c'est magnifique", "안녕하세요", "太好看了", "สวัสดี", "مرحبا بالجميع",
	"👨‍👩‍👧‍👦 みんなで見てます", "🇯🇵🎌", "♪～(´ε｀ )", "  ∧,,∧\n (・ω・)\n  つ　つ",
}
