package loadtest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// TestFlags reads a command line as cmd/kansei does.
func TestFlags(t *testing.T) {
	t.Setenv("KANSEI_AUTH_SECRET", "from the environment")
	var cli struct {
		Load Command `cmd:""`
	}
	k, err := kong.New(&cli, kong.Exit(func(int) { t.Error("exit") }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse(strings.Fields("load --url http://a:1,http://b:2 --url ws://c --viewers 2000 --trace x.ndjson --speed 5 --user-ids uuid --json --settle 3s")); err != nil {
		t.Fatal(err)
	}
	c := cli.Load
	if !slices.Equal(c.URL, []string{"http://a:1", "http://b:2", "ws://c"}) || c.Viewers != 2000 || c.Speed != 5 || !c.JSON ||
		c.UserIDs != idsUUID || c.AuthSecret != "from the environment" || c.Settle != 3*time.Second {
		t.Errorf("parsed %+v", c)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
	cli.Load = Command{}
	if _, err := k.Parse([]string{"load"}); err != nil {
		t.Fatal(err)
	}
	if err := cli.Load.check(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestCommandRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Command)
		want   string
	}{
		"url":        {func(c *Command) { c.URL = nil }, "url"},
		"a url":      {func(c *Command) { c.URL = []string{"localhost:1"} }, `"localhost:1"`},
		"not a url":  {func(c *Command) { c.URL = []string{"http://h:x"} }, "url"},
		"room":       {func(c *Command) { c.Room = "a b" }, `"a b"`},
		"viewers":    {func(c *Command) { c.Viewers = 0 }, "viewers is 0"},
		"join rate":  {func(c *Command) { c.JoinRate = 0 }, "join-rate is 0"},
		"speed":      {func(c *Command) { c.Speed = -1 }, "speed is -1"},
		"rate":       {func(c *Command) { c.Rate = 0 }, "rate is 0"},
		"publishers": {func(c *Command) { c.Publishers = -1 }, "publishers is -1"},
		"settle":     {func(c *Command) { c.Settle = 0 }, "settle is 0s"},
		"ids":        {func(c *Command) { c.UserIDs = "long" }, "user-ids is long"},
		"much":       {func(c *Command) { c.Rate = 1e9; c.Duration = time.Hour }, "comments"},
		"little":     {func(c *Command) { c.Rate = 0.01; c.Duration = time.Second }, "0 comments"},
		"no trace":   {func(c *Command) { c.Trace = "/nowhere/trace" }, "/nowhere/trace"},
		"files":      {func(c *Command) { c.Viewers = 1_000_000 }, "open files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(tc.change)
			_, err := c.measure(t.Context(), io.Discard, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestReadTrace(t *testing.T) {
	t.Parallel()
	got, err := readTrace(strings.NewReader("{\"media_ms\":500,\"text\":\"b\",\"color\":\"red\"}\n\n{\"media_ms\":100,\"text\":\"a\"}\r\n{\"media_ms\":500,\"text\":\"c\"}"))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d comments, %v, want 3", len(got), err)
	}
	for i, want := range []string{"a 0s <nil>", "b 400ms &{  red}", "c 400ms <nil>"} {
		if s := fmt.Sprint(got[i].req.Text, " ", got[i].at, " ", got[i].req.Style); s != want {
			t.Errorf("comment %d is %s, want %s", i, s, want)
		}
	}
	for name, s := range map[string]string{
		"no JSON": "{", "no time": `{"text":"a"}`, "before the beginning": `{"media_ms":-1}`,
		"after the end": `{"media_ms":9223372036854775807}`, "a long line": strings.Repeat("x", maxTraceLine+1),
	} {
		if _, err := readTrace(strings.NewReader(s)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := readTrace(iotest.ErrReader(os.ErrPermission)); err == nil {
		t.Error("a read error was lost")
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("{\"media_ms\":500,\"text\":\"b\",\"color\":\"red\"}\n{\"media_ms\":0,\"text\":\"a\"}")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := readTrace(strings.NewReader(s))
		if err != nil {
			return
		}
		for i, d := range got {
			if d.at < 0 || i == 0 && d.at != 0 || i > 0 && d.at < got[i-1].at {
				t.Errorf("comment %d is due at %v", i, d.at)
			}
		}
	})
}

// TestGenerated makes comments of every kind, that a server takes, and the same
// ones again.
func TestGenerated(t *testing.T) {
	t.Parallel()
	p, err := command(func(c *Command) { c.Rate, c.Duration = 100, 20*time.Second }).plan()
	if err != nil || p.total != 2000 {
		t.Fatalf("%d comments, %v, want 2000", p.total, err)
	}
	var all []due
	lines, emoji, styled := 0, 0, 0
	for d := range p.all {
		all = append(all, d)
		if n := utf8.RuneCountInString(d.req.Text); n == 0 || n > 200 {
			t.Errorf("a comment of %d characters: %q", n, d.req.Text)
		}
		if strings.Contains(d.req.Text, "\n") {
			lines++
		}
		if strings.ContainsAny(d.req.Text, "👏🎉👨🇯👍") {
			emoji++
		}
		if d.req.Style != nil {
			styled++
		}
		d.req.Ref = "1"
		if _, err := protocol.DecodeRequest(protocol.EncodeRequest(&d.req)); err != nil {
			t.Errorf("%q: %v", d.req.Text, err)
		}
	}
	if lines == 0 || emoji == 0 || styled == 0 || styled == len(all) {
		t.Errorf("%d with lines, %d with emoji, %d styled of %d", lines, emoji, styled, len(all))
	}
	if all[1999].at != 19990*time.Millisecond || p.length != all[1999].at {
		t.Errorf("the last is due at %v, the plan's length is %v", all[1999].at, p.length)
	}
	n := 0
	for d := range p.all {
		if d.at != all[n].at || d.req.Text != all[n].req.Text {
			t.Fatalf("comment %d is another one the second time", n)
		}
		n++
	}
}

func TestEnoughPublishers(t *testing.T) {
	t.Parallel()
	p, err := command(func(c *Command) { c.Rate, c.Duration = 800, 10*time.Second }).plan()
	if err != nil {
		t.Fatal(err)
	}
	limits := protocol.Limits{PerS: 100, Burst: 200}
	if n := p.enough(limits); n < 8 || n > 10 {
		t.Errorf("%d publishers for 800/s at 100/s, want 8 to 10", n)
	}
	if got := p.tooMany(4, limits); got < 3000 || got > 3400 {
		t.Errorf("%d refused with 4 publishers, want about 3200", got)
	}
	if n := p.enough(protocol.Limits{PerS: 1, Burst: 5}); n < 800 || n > 3000 {
		t.Errorf("%d guests, want some more than 800", n)
	}
	if n := p.enough(protocol.Limits{PerS: 1e-9, Burst: 1}); n != 0 && n < 8000 {
		t.Errorf("%d publishers who may speak once, want none or one a comment", n)
	}
	if n := p.enough(protocol.Limits{}); n != 1 {
		t.Errorf("%d publishers without limits, want 1", n)
	}
}

func TestMint(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s, err := Mint(testSecret, "room", "u1", "名", protocol.RoleBroadcaster, now)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(s, claims, func(*jwt.Token) (any, error) { return []byte(testSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired()); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(claims["sub"], claims["name"], claims["role"], claims["rooms"]), "u1名broadcaster[room]"; got != want {
		t.Errorf("claims %s, want %s", got, want)
	}
	if id := uuid(rand.New(rand.NewPCG(1, 1))); len(id) != 36 || id[14] != '4' {
		t.Errorf("%q is no UUID of version 4", id)
	}
}

// serverFrame makes one unmasked frame.
func serverFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// TestMeter measures messages that come in pieces of every size.
func TestMeter(t *testing.T) {
	t.Parallel()
	var stream []byte
	stream = append(stream, "HTTP/1.1 101 Switching\r\nA: \r\r\nB: c\r\n\r\n"...)
	stream = append(stream, serverFrame(0x81, make([]byte, 5))...)
	stream = append(stream, serverFrame(0x89, make([]byte, 3))...) // a ping
	stream = append(stream, serverFrame(0xc1, make([]byte, 200))...)
	stream = append(stream, serverFrame(0x01, make([]byte, 70_000))...) // in two fragments,
	stream = append(stream, serverFrame(0x8a, nil)...)                  // with a pong between them
	stream = append(stream, serverFrame(0x80, make([]byte, 1))...)
	stream = append(stream, serverFrame(0x81, nil)...)
	stream = append(stream, serverFrame(0x88, []byte{3, 232})...)
	want := []int{5, 200, 70_001, 0}
	for _, piece := range []int{1, 2, 7, 41, 4096, len(stream)} {
		m := &meter{Conn: readConn{bytes.NewReader(stream)}}
		buf := make([]byte, piece)
		var err error
		for err == nil {
			_, err = m.Read(buf)
		}
		if n := len(m.sizes); n != len(want) {
			t.Errorf("in pieces of %d: %d messages, want %d", piece, n, len(want))
		}
		for _, w := range want {
			if n := m.take(); n != w {
				t.Errorf("in pieces of %d: %d bytes, want %d", piece, n, w)
			}
		}
		if n := m.take(); n != 0 {
			t.Errorf("in pieces of %d: %d bytes of no message", piece, n)
		}
	}
}

type readConn struct{ io.Reader }

func (c readConn) Read(p []byte) (int, error)     { return c.Reader.Read(p) }
func (readConn) Write(p []byte) (int, error)      { return len(p), nil }
func (readConn) Close() error                     { return nil }
func (readConn) LocalAddr() net.Addr              { return nil }
func (readConn) RemoteAddr() net.Addr             { return nil }
func (readConn) SetDeadline(time.Time) error      { return nil }
func (readConn) SetReadDeadline(time.Time) error  { return nil }
func (readConn) SetWriteDeadline(time.Time) error { return nil }

func FuzzMeter(f *testing.F) {
	f.Add([]byte("\r\n\r\n\x81\x05hello\x88\x02\x03\xe8"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, bytewise := new(meter), new(meter)
		whole.scan(stream)
		for i := range stream {
			bytewise.scan(stream[i : i+1])
		}
		if !slices.Equal(whole.sizes, bytewise.sizes) || whole.rest != bytewise.rest {
			t.Errorf("at once %v, byte by byte %v", whole.sizes, bytewise.sizes)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"comments","cursor":"1","items":[{"id":"a","at":1,"user":{"id":"u"},"text":"x"}],"shown":1,"of":3}`))
	f.Add([]byte(`{"type":"comments","items":[{"id":""},{"id":"A"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, ok := parse(raw)
		if p.withheld < 0 || p.bad < 0 || !ok && len(p.items) > 0 {
			t.Errorf("parsed %+v, %v", p, ok)
		}
		for _, it := range p.items {
			if id, ok := parseID(it.id.String()); !ok || id != it.id {
				t.Errorf("id %q", it.id)
			}
		}
	})
}

// TestMeterSeesCompression compares the meter with a frame whose compressed size
// is known.
func TestMeterSeesCompression(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("歓声"), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	m := &meter{ended: len(blankLine)}
	m.scan(serverFrame(0xc1, packed.Bytes()))
	if n := m.take(); n != packed.Len() {
		t.Errorf("%d bytes, want the %d that were sent", n, packed.Len())
	}
}
