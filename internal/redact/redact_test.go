package redact

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"nats://10.0.0.1:4222":                                     "nats://10.0.0.1:4222",
		"10.0.0.1:4222":                                            "10.0.0.1:4222",
		"nats://hunter22@10.0.0.1:4222":                            "nats://***@10.0.0.1:4222",
		"hunter22@10.0.0.1:4222":                                   "***@10.0.0.1:4222",
		" nats://ann:hunter22@a\n":                                 "nats://***@a",
		"nats://ann:hunt%40er22@a":                                 "nats://***@a",
		"nats://ann:hunt@er22@a:1":                                 "nats://***@a:1",
		"nats://ann:hunt/er22@a:1":                                 "nats://***@a:1",
		"nats://ann:hunt?er22@a:1":                                 "nats://***@a:1",
		"nats://ann:%zz@a:1":                                       "nats://***@a:1",
		"nats://hunter22@":                                         "nats://***@",
		"ws://hunter22@a:1/path?jwt=hunter22#x":                    "ws://***@a:1/path",
		"redis+sentinel://s:t@a:1/4?master_name=m&password=hunter": "redis+sentinel://***@a:1/4",
		"unix://ann:hunter22@/run/redis.sock?db=2":                 "unix://***@/run/redis.sock",
		"redis://a?password=hunter22":                              "redis://a",
		"":                                                         "",
	} {
		if got := URL(in); got != want {
			t.Errorf("URL(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"nats://a:1,nats://b:2":                         "nats://a:1,nats://b:2",
		"nats://hunter22@a:1,nats://ann:hunter22@b:2":   "nats://***@a:1,nats://***@b:2",
		"nats://ann:hunter22@a:1,b:2,c":                 "nats://***@a:1,b:2,c",
		"nats://ann:hunt,er22@a:1,nats://b":             "nats://***@a:1,nats://b",
		"hunter22@a:1, hunter23@b:2":                    "***@b:2",
		"redis://ann:hun,ter,22@a:1,b:2?password=hunt2": "redis://***@a:1,b:2",
	} {
		if got := URLs(in); strings.Contains(got, "hun") || strings.Contains(got, "ter") || got != want {
			t.Errorf("URLs(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"no URL here: a@b, 5 @ 6":                        "no URL here: a@b, 5 @ 6",
		`parse "nats://ann:hunt%zz@a:1": invalid`:        `parse "nats://***@a:1": invalid`,
		"to nats://hunter22@a:1 and tls://hunter22@b":    "to nats://***@a:1 and tls://***@b",
		"nats://hunter22@a:1,nats://hunter22@b":          "nats://***@b",
		"redis://a?password=hunter22&db=1 is not there":  "redis://a?password=***&db=1 is not there",
		"redis://a?sentinel_password=hunter22 (timeout)": "redis://a?sentinel_password=*** (timeout)",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	s := Of("nats://hunter22@a:1", "ann:pass%40word@b", "nats://c:4222", "nats://x:y@d")
	for in, want := range map[string]string{
		"hunter22 is wrong":        "*** is wrong",
		"ann has pass@word":        "ann has ***",
		"ann has pass%40word":      "ann has ***",
		"as ann:pass%40word":       "as ***",
		"x and y stay words":       "x and y stay words",
		"nats://somebody:x@e is y": "nats://***@e is y",
	} {
		err := s.Error(fmt.Errorf("%s: %w", in, io.ErrUnexpectedEOF))
		if got := err.Error(); got != want+": unexpected EOF" {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q does not wrap its cause any more", in)
		}
	}
	if err := s.Error(nil); err != nil {
		t.Error("nil became", err)
	}
	if got := (Secrets{}).Text("nats://hunter22@a"); got != "nats://***@a" {
		t.Error("without secrets:", got)
	}
}

// Whatever stands before the host is not shown.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"hunter22", "ann:p@ss", "%zz", "a/b", "a?b", "a#b", "a,b", "a b", "://", "@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{URL("nats://" + s + "@host:1"), URL("nats://ann:" + s + "@host:1")} {
			if got != "nats://***@host:1" {
				t.Errorf("%q is shown as %q", s, got)
			}
		}
		if got := URLs("nats://" + s + "@host:1"); !strings.HasSuffix(got, "***@host:1") {
			t.Errorf("%q is shown in a list as %q", s, got)
		}
	})
}
