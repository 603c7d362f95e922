package descriptors

import "testing"

func TestDivide(t *testing.T) {
	t.Parallel()
	defaults := Uses{Viewers: 50_000, HTTP: 10_000, Refused: 1000, Operator: 256, Own: 112}
	small := Uses{Viewers: 100, HTTP: 1000, Refused: 1000, Operator: 256, Own: 112}
	for _, tt := range []struct {
		name  string
		limit int
		want  Uses
		got   Uses
	}{
		{"enough", 61_368, defaults, defaults},
		{"all there is", 1 << 30, defaults, defaults},
		{"one too few", 61_367, defaults, Uses{50_000, 9_999, 1000, 256, 112}},
		{"a common hard limit", 4096, defaults, Uses{2797, 559, 372, 256, 112}},
		{"the common soft limit", 1024, defaults, Uses{589, 117, 78, 128, 112}},
		{"few", 256, defaults, Uses{85, 16, 11, 32, 112}},
		{"few viewers leave more to HTTP", 1024, small, Uses{100, 606, 78, 128, 112}},
	} {
		got, err := Divide(tt.limit, tt.want)
		if err != nil || got != tt.got {
			t.Errorf("%s: %+v %v, want %+v", tt.name, got, err, tt.got)
		}
	}
	for limit := range 4096 {
		got, err := Divide(limit, defaults)
		switch {
		case err == nil && (got.Sum() > limit || got.Viewers < leastViewers || got.HTTP < 1 || got.Refused < 1 || got.Operator < leastOperator || got.Own != defaults.Own):
			t.Errorf("%d: %+v", limit, got)
		case err != nil && limit > 200:
			t.Errorf("%d: %v", limit, err)
		}
	}
	if _, err := Divide(128, defaults); err == nil || err.Error() != "only 128 open files are allowed, and a node needs 128 before the first viewer" {
		t.Errorf("too few for anybody: %v", err)
	}
}
