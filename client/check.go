package client

import (
	"fmt"

	"github.com/kansei-live/kansei/protocol"
)

// besideText is how many bytes every server takes of a request beside four for each code
// point of its text, and its data.
const besideText = 512

// check says what is wrong with a request that no server would take: it closes the
// connection of a client that sends many of them. What is wrong with the text alone is for the
// server to say, which cleans it first.
func check(req *protocol.CommentRequest) error {
	_, err := protocol.DecodeRequest(protocol.EncodeRequest(req))
	return err
}

// fits is the error of a request that is too large for a server with those limits: it
// would close the connection for good.
func fits(req *protocol.CommentRequest, limits protocol.Limits) error {
	if limits.Text <= 0 { // a server of another version, perhaps
		return nil
	}
	if n, most := len(protocol.EncodeRequest(req)), 4*limits.Text+besideText+len(req.Data); n > most {
		return &protocol.Error{Ref: req.Ref, Code: protocol.CodeTooLong, Message: fmt.Sprintf("the request has %d bytes, at most %d are allowed", n, most)}
	}
	return nil
}
