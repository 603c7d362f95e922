package text

import "testing"

func TestContains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s, sub string
		want   bool
	}{
		{"JOIN  n.o.w at evil.example!!!", "join now", true},
		{"ｊｏｉｎ ｎｏｗ", "Join Now", true},
		{"𝓳𝓸𝓲𝓷 now", "join now", true},
		{"jóîn nöw", "join now", true},
		{"今すぐ 登録 →", "今すぐ登録", true},
		{"ｶﾞﾝﾊﾞﾚ", "ガンバレ", true},
		{"joining nowhere", "join now", false},
		{"hello", "", false},
		{"hello", "  ", false},
		{"go 🔥🔥🔥", "🔥🔥", true},
		{"🔥", "🔥🔥", false},
		{"8888", "８８", true},
	} {
		if got := Contains(c.s, c.sub); got != c.want {
			t.Errorf("Contains(%q, %q) is %v", c.s, c.sub, got)
		}
	}
}
