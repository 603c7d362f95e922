package watchlog

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
)

// What is encoded by hand is what package json makes.
func TestEncodingIsThatOfPackageJSON(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	texts := []string{"", "user-1", "さくら", `a"b\c`, "<&>", "line\nbreak", "\u2028", "\xff", "\x00", "😀", "del\x7f"}
	text := func() string { return texts[random.IntN(len(texts))] }
	b := Batch{Life: "life\"", N: 7, At: 1767225600000}
	var rows []byte
	for range 2000 {
		r := Row{
			Conn: random.Uint32(), N: random.IntN(3), User: text(), Name: text(), Session: text(), Device: text(), Guest: random.IntN(2) == 0, Totals: random.IntN(2) == 0,
			From: random.Int64() - random.Int64(), To: random.Int64N(9), Seen: random.IntN(2) == 0, Plays: random.IntN(2) == 0, End: End(text()),
		}
		for range random.IntN(4) {
			r.Visible = append(r.Visible, Range{random.Int64(), -1})
			r.Played = append(r.Played, Played{1, random.Int64(), -3, 0})
		}
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got := appendRow(nil, &r)
		if string(got) != string(want) {
			t.Fatalf("\n got %s\nwant %s", got, want)
		}
		if len(rows) > 0 {
			rows = append(rows, ',')
		}
		rows, b.Rows = append(rows, got...), append(b.Rows, r)
	}
	for _, same := range [][][2]uint32{nil, {{1, 4294967295}}, {{1, 2}, {5, 5}}} {
		b.Same = same
		if got, want := string(appendBatch(nil, b.Life, b.N, b.At, rows, same)), string(b.Encode()); got != want {
			t.Errorf("a batch with %v is another one: %d and %d bytes", same, len(got), len(want))
		}
	}
	b.Rows, b.Same = nil, nil
	if got, want := string(appendBatch(nil, b.Life, b.N, b.At, nil, nil)), string(b.Encode()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
