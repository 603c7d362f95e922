package hub

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// Records are what json.Unmarshal makes of them, whoever has written them.
func TestDecodeRecord(t *testing.T) {
	by := `{"id":"m","name":"さくら","role":"moderator"}`
	d := new(records)
	for _, p := range []string{
		`{"act":{"id":"a","kind":"ban","by":` + by + `,"at":5,"hash":"h","user":"u","name":"n","reason":"r","ends":9,"after":3},"pos":7,"pos_at":8}`,
		`{"act":{"id":"a","kind":"remove","by":` + by + `,"at":5,"ids":["x","y"]}}`,
		`{"act":{"id":"a","kind":"remove","by":` + by + `,"at":5,"ids":[]}}`,
		`{"act":{"id":"a","kind":"ban","by":{"id":"n"},"at":5,"quiet":true,"clear":true,"from":"all","broadcast":4}}`,
		`{"act":{"id":"a","kind":"ban","by":{"id":"n","avatar":"https://x/y"},"at":5,"reason":"a \\"quote\\" \\u003c"},"undo":{"id":"b","kind":"undo","by":` + by + `,"at":6,"undoes":["a"]},"pos":7}`,
		`{"act":{"id":"a","kind":"ban","by":{"id":"n","name":"` + "\xff" + `"},"at":5},"gone":true}`,
		` { "act" : { "id" : "a" , "by" : {"id":"n"} } , "pos" : 18446744073709551615 } `,
		`{"act":{"id":"a","at":-5},"pos":1.0}`, `{"act":{"id":"a","at":05}}`, `{"act":{"id":"a","more":{"x":[1]}},"new":"y"}`,
		`{"lasting":{"name":"slide","last":{"seq":7,"at":8,"id":"x","body":{"a":1}},"pending":[{"id":"y","at":9,"after":7}]}}`, `{"lasting":null}`,
		`{"act":{"id":""}}`, `{}`, ``, `null`, `[]`, `{"act":{"id":"a"}}x`, `{"act":{"id":"a"},}`, `{,}`, `{"act"}`, `{"act":{"id":"a`, `{"act":{"id":"a","ids":["x"`,
		`{"act":{"id":"a","by":{"id":"broken`, `{"act":{"id":"a","by":{"id":"broken"}}}`,
	} {
		for range 2 { // the second time the author is known
			var want Record
			ok := json.Unmarshal([]byte(p), &want) == nil && (want.Act.ID != "" || want.Lasting != nil)
			got, is := d.decode([]byte(p))
			if is != ok || is && !reflect.DeepEqual(plainRecord(got), plainRecord(want)) {
				t.Errorf("%s: %v %+v, want %v %+v", p, is, got, ok, want)
			}
		}
	}
}

// plainRecord makes no difference between no ids and none that are written.
func plainRecord(r Record) Record {
	if len(r.Act.IDs) == 0 {
		r.Act.IDs = nil
	}
	return r
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"act":{"id":"a","kind":"ban","by":{"id":"m","role":"moderator"},"at":5,"ids":["x"],"hash":"h"},"pos":7,"pos_at":8}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		var want Record
		ok := json.Unmarshal(p, &want) == nil && (want.Act.ID != "" || want.Lasting != nil)
		if got, is := new(records).decode(p); is != ok || is && !reflect.DeepEqual(plainRecord(got), plainRecord(want)) {
			t.Errorf("%s: %v %+v, want %v %+v", p, is, got, ok, want)
		}
	})
}

// BenchmarkStanding measures how a room takes in 10,000 bans and 1,000 removals when it is opened.
func BenchmarkStanding(b *testing.B) {
	var all []Standing
	for i := range 11_000 {
		a := Act{ID: fmt.Sprint("act", i), Kind: protocol.TypeBan, By: protocol.User{ID: "moderator", Name: "moderator", Role: protocol.RoleModerator},
			At: 1764200000000, Reason: "spam", After: 9}
		if i < 10_000 {
			a.Hash, a.User, a.Ends = fmt.Sprintf("%026d", i), fmt.Sprint("u", i), 1764300000000
		} else {
			a.Kind, a.IDs = protocol.TypeRemove, []string{fmt.Sprintf("zzz%03dabcdefg", i%1000)}
		}
		body, err := json.Marshal(Record{Act: a, Pos: uint64(i + 10), PosAt: 1764200000001})
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, Standing{ID: a.ID, Seq: uint64(i + 1), Body: body})
	}
	b.ReportAllocs()
	for b.Loop() {
		r := new(Room)
		var d records
		for i := range all {
			r.stands(&all[i], &d, true)
		}
		if len(r.standing.acts) != len(all) {
			b.Fatal("not all were taken")
		}
	}
}
