package watchlog

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Rows are encoded here as package json would, without what that allocates: thousands may come at once.

// appendRow appends a row.
func appendRow(dst []byte, r *Row) []byte {
	dst = strconv.AppendUint(append(dst, `{"c":`...), uint64(r.Conn), 10)
	if r.N != 0 {
		dst = strconv.AppendInt(append(dst, `,"n":`...), int64(r.N), 10)
	}
	dst = appendField(dst, `,"user":`, r.User)
	dst = appendField(dst, `,"name":`, r.Name)
	dst = appendField(dst, `,"session":`, r.Session)
	dst = appendField(dst, `,"device":`, r.Device)
	dst = appendFlag(dst, `,"guest":true`, r.Guest)
	dst = appendFlag(dst, `,"totals":true`, r.Totals)
	dst = strconv.AppendInt(append(dst, `,"from":`...), r.From, 10)
	dst = strconv.AppendInt(append(dst, `,"to":`...), r.To, 10)
	for i, v := range r.Visible {
		dst = appendList(dst, `,"visible":[`, i, v[:])
	}
	dst = appendFlag(dst, `]`, len(r.Visible) > 0)
	for i, p := range r.Played {
		dst = appendList(dst, `,"played":[`, i, p[:])
	}
	dst = appendFlag(dst, `]`, len(r.Played) > 0)
	dst = appendFlag(dst, `,"seen":true`, r.Seen)
	dst = appendFlag(dst, `,"plays":true`, r.Plays)
	dst = appendField(dst, `,"end":`, string(r.End))
	return append(dst, '}')
}

func appendFlag(dst []byte, text string, is bool) []byte {
	if is {
		dst = append(dst, text...)
	}
	return dst
}

func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(append(dst, name...), value)
}

// appendList appends the n-th list of numbers of a list that begins with head.
func appendList(dst []byte, head string, n int, numbers []int64) []byte {
	if n == 0 {
		dst = append(dst, head...)
	} else {
		dst = append(dst, ',')
	}
	for i, x := range numbers {
		dst = strconv.AppendInt(append(dst, "[,"[min(i, 1)]), x, 10)
	}
	return append(dst, ']')
}

func appendText(dst []byte, s string) []byte {
	plain := utf8.ValidString(s) && !strings.ContainsAny(s, "\"\\<>&\u2028\u2029")
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' '
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	p, _ := json.Marshal(s) // a text
	return append(dst, p...)
}

// appendBatch appends a batch whose rows are encoded already, with commas between them.
func appendBatch(dst []byte, life string, n uint64, at int64, rows []byte, same [][2]uint32) []byte {
	dst = appendText(append(dst, `{"life":`...), life)
	dst = strconv.AppendUint(append(dst, `,"n":`...), n, 10)
	dst = strconv.AppendInt(append(dst, `,"at":`...), at, 10)
	if len(rows) > 0 {
		dst = append(append(append(dst, `,"rows":[`...), rows...), ']')
	}
	for i, s := range same {
		dst = appendList(dst, `,"same":[`, i, []int64{int64(s[0]), int64(s[1])})
	}
	dst = appendFlag(dst, `]`, len(same) > 0)
	return append(dst, '}')
}
