package edge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// linkLife is how long a link for the crew holds when nothing is said.
	linkLife = 12 * time.Hour
	// maxPage is how long the address of a page may be, in bytes: a QR code holds 2,953.
	maxPage = 512
)

// postLink is POST /v1/rooms/{room}/links: a token for somebody of the crew. A broadcaster makes
// them for the room, and nobody gives more than they have.
func (s *Server) postLink(w http.ResponseWriter, r *http.Request) {
	room, who, ok := s.enter(w, r, "")
	if !ok {
		return
	}
	if who.role != protocol.RoleBroadcaster && !who.admin {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeForbidden, Message: "only a broadcaster of this room may make links for its crew, or an API key with the scope admin"}, 0)
		return
	}
	if !s.mayAsk(w, userOf(room, who.id), who) {
		return
	}
	p, ok := s.body(w, r)
	if !ok {
		return
	}
	asked, err := protocol.DecodeLink(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	link, e := s.link(room, &who, asked)
	if e != nil {
		writeProblem(w, 0, e, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusCreated, link)
}

// link makes a link that somebody has asked for.
func (s *Server) link(room string, who *identity, asked *protocol.LinkRequest) (*protocol.Link, *protocol.Error) {
	bad := func(format string, a ...any) (*protocol.Link, *protocol.Error) {
		return nil, &protocol.Error{Code: protocol.CodeBadMessage, Message: fmt.Sprintf(format, a...)}
	}
	if s.cfg.Sign == nil {
		return nil, &protocol.Error{Code: protocol.CodeUnsupported, Message: "this node has no secret to sign a token with (--auth-secret, or --node-secret)"}
	}
	c := auth.Claims{Subject: s.real(asked.User), Name: asked.Name, Role: asked.Role, Rooms: []string{room}, Can: asked.Can, ID: rand.Text()}
	if c.Subject != "" && !who.admin && !who.anybody {
		return nil, &protocol.Error{Code: protocol.CodeForbidden, Message: "to name the user takes the permission publish_as: leave user out, and one is made up"}
	}
	if c.Subject == "" {
		c.Subject = "crew-" + strings.ToLower(rand.Text()[:10])
	}
	if err := auth.CheckUser(c.Subject); err != nil {
		return bad("user: %v", err)
	}
	if c.Name == "" {
		c.Name = string(c.Role)
	}
	for _, can := range c.Can {
		if can != protocol.CanBeUncounted && can != protocol.CanPublishAs {
			return bad("can must be of uncounted and publish_as, not %.40q", can)
		}
		if !slices.Contains(who.can(), can) && !who.admin {
			return nil, &protocol.Error{Code: protocol.CodeForbidden, Message: "you may not give what you do not have: " + can}
		}
	}
	life := linkLife
	if asked.ForMS != 0 {
		life = time.Duration(asked.ForMS) * time.Millisecond
	}
	if asked.ForMS < 0 || asked.ForMS > s.cfg.MaxTokenAge.Milliseconds() || life < time.Second {
		return bad("for_ms must be 1000 to %d", s.cfg.MaxTokenAge.Milliseconds())
	}
	page := asked.Page
	if at, err := url.Parse(page); page != "" && (err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.Fragment != "" || len(page) > maxPage) {
		return bad("page must be an http or https address without #, of at most %d bytes", maxPage)
	}
	token, err := s.cfg.Sign(c, life)
	if err != nil {
		return bad("%s", strings.TrimPrefix(err.Error(), "auth: "))
	}
	made, err := s.cfg.Tokens.Verify(token, room) // by what it says everybody will know its bearer
	if err != nil {
		return bad("%s", strings.TrimPrefix(err.Error(), "auth: "))
	}
	link := &protocol.Link{Token: token, JTI: made.ID, User: made.Subject, Ends: made.Expires.UnixMilli()}
	if page != "" {
		link.URL = page + "#token=" + token
		code, err := qr.Encode(link.URL, qr.L)
		if err != nil {
			return bad("page makes a link that is too long for a QR code")
		}
		link.QR = drawn(code)
	}
	return link, nil
}

// drawn is a QR code as one path, of a run of dark squares after the other, without the margin.
func drawn(c *qr.Code) *protocol.QR {
	var b strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from, y, x-from, x-from)
			}
		}
	}
	return &protocol.QR{Size: c.Size, Path: b.String()}
}
