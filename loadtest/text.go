package loadtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/kansei-live/kansei/protocol"
)

// What the generated audience says, and how.
var (
	cheers   = [...]string{"8", "w", "草", "おお", "わあ", "きた", "！", "ﾊﾟﾁ"}
	subjects = [...]string{
		"この先生", "今日の授業", "ここの式", "次の曲", "左のグラフ", "いまの実験", "このスライド", "後ろの猫", "さっきの話", "The slide",
	}
	remarks = [...]string{
		"わかりやすい", "もう一回お願いします", "すごい", "テストに出ますか", "かわいい", "聞こえません", "好き",
		"難しいけど面白い", "ありがとうございます", "どういう意味ですか", "is great", "天才では",
	}
	symbols  = [...]string{"👏", "🎉", "😂", "❤️", "👨‍👩‍👧‍👦", "🙇‍♀️", "🇯🇵", "👍🏽", "✨", "🔥"}
	drawings = [...]string{
		"　 ∧＿∧\n　( ・ω・)　＜ がんばれ\n　( つ旦O\n　と＿)＿)",
		"＿人人人人人人＿\n＞　ここ重要　＜\n￣Y^Y^Y^Y^Y￣",
		"　　 ／￣￣￣＼\n　 ／ ─　　─ ＼\n　|　（●）（●） |\n　 ＼　 （__人__） ／",
		"┏━━━━┓\n┃ 開始 ┃\n┗━━━━┛",
	}
	positions = [...]string{"scroll", "top", "bottom"}
	sizes     = [...]string{"small", "medium", "big"}
	hues      = [...]string{"white", "red", "pink", "orange", "yellow", "green", "cyan", "blue", "purple", "black"}
)

// generate makes one comment of the kind that a danmaku audience writes: mostly
// short cheers, then sentences, emoji, and now and then a drawing of some lines.
func generate(rng *rand.Rand) protocol.CommentRequest {
	var req protocol.CommentRequest
	switch n := rng.IntN(100); {
	case n < 45:
		req.Text = strings.Repeat(pick(rng, cheers[:]), 1+rng.IntN(12))
	case n < 80:
		req.Text = pick(rng, subjects[:]) + " " + pick(rng, remarks[:])
	case n < 95:
		req.Text = pick(rng, remarks[:]) + strings.Repeat(pick(rng, symbols[:]), 1+rng.IntN(4))
	default:
		req.Text = pick(rng, drawings[:])
	}
	if rng.IntN(5) < 3 {
		req.Style = &protocol.Style{Size: pick(rng, sizes[:])}
		if rng.IntN(2) == 0 {
			req.Style.Color = pick(rng, hues[:])
		}
		if rng.IntN(3) == 0 {
			req.Style.Position = pick(rng, positions[:])
		}
	}
	return req
}

// Texts returns what gives one comment after the other, without end: those of a trace
// file, from some place on and over again, or made-up ones if there is none.
func Texts(trace string, seed uint64) (next func() protocol.CommentRequest, err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	if trace == "" {
		return func() protocol.CommentRequest { return generate(rng) }, nil
	}
	f, err := os.Open(trace)
	if err != nil {
		return nil, fmt.Errorf("loadtest: trace: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	all, err := readTrace(f)
	if err != nil {
		return nil, fmt.Errorf("loadtest: trace %s: %w", trace, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("loadtest: trace %s holds no comment", trace)
	}
	at := rng.IntN(len(all))
	return func() protocol.CommentRequest {
		at = (at + 1) % len(all)
		return all[at].req
	}, nil
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }
