package protocol

import (
	"strconv"
	"testing"
)

func BenchmarkDecodeRequest(b *testing.B) {
	for _, name := range []string{"beat", "comment", "comment_full"} {
		p := EncodeRequest(clientRequests[name])
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRequest(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	// What a sender can make the decoder do with 8 KiB.
	for _, name := range []string{"deep_array", "deep_object"} {
		p := testFiles(b, "bad")[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRequest(p); err == nil {
					b.Fatal("no error")
				}
			}
		})
	}
	many := []byte(`{"type":"comment","text":"x"`)
	for i := 0; len(many) < 8180; i++ {
		many = append(many, `,"`+strconv.Itoa(i)+`":0`...)
	}
	many = append(many, '}')
	b.Run("many_fields", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeRequest(many); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"ok", "beat", "viewers", "welcome", "comments_full"} {
		m := serverMessages[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Encode(m)
			}
		})
	}
}

func BenchmarkEncodeBody(b *testing.B) {
	c := serverMessages["comments_full"].(*Comments).Items[0]
	b.ReportAllocs()
	for b.Loop() {
		EncodeBody(c)
	}
}

func BenchmarkDecode(b *testing.B) {
	item := serverMessages["comments_full"].(*Comments).Items[0]
	for _, n := range []int{1, 11, 40} {
		m := &Comments{Cursor: cursor}
		for range n {
			m.Items = append(m.Items, item)
		}
		p := Encode(m)
		b.Run(strconv.Itoa(n)+"_comments", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := Decode(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendComments(b *testing.B) {
	body := EncodeBody(serverMessages["comments_full"].(*Comments).Items[0])
	items := make([][]byte, 40)
	for i := range items {
		items[i] = AppendItem(nil, "1d", 1767225600300, body)
	}
	dst := make([]byte, 0, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendComments(dst[:0], cursor, false, items)
	}
}
