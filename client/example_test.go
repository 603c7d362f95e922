package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// Join a room, say something, and print what arrives.
func Example() {
	node := httptest.NewServer(http.HandlerFunc(room))
	defer node.Close()

	ctx, leave := context.WithCancel(context.Background())
	c, err := client.New(client.Config{
		URLs: []string{node.URL},
		Room: "lesson-7",
		Handler: client.Handler{
			Welcome: func(w *protocol.Welcome) { fmt.Println("joined as", w.You.Name) },
			Comments: func(m *protocol.Comments) {
				for _, c := range m.Items {
					fmt.Printf("%s: %s\n", c.User.Name, c.Text)
				}
				leave()
			},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ends with leave
	if _, err := c.Comment(ctx, protocol.CommentRequest{Text: "歓声！"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-done)
	// Output:
	// joined as Hana
	// Hana: 歓声！
	// context canceled
}

// room stands for a node: it welcomes, and says what is said.
func room(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol.Subprotocol}})
	if err != nil {
		return
	}
	defer ws.CloseNow() //nolint:errcheck // the other side has closed it
	ctx := context.Background()
	send := func(m protocol.Message) { _ = ws.Write(ctx, websocket.MessageText, protocol.Encode(m)) }
	hana := protocol.User{ID: "u1", Name: "Hana"}
	send(&protocol.Welcome{V: protocol.Version, Room: "lesson-7", You: protocol.You{ID: hana.ID, Name: hana.Name}})
	var said protocol.CommentRequest
	if err := wsjson.Read(ctx, ws, &said); err != nil {
		return
	}
	send(&protocol.OK{Ref: said.Ref, ID: "c1"})
	send(&protocol.Comments{Cursor: "1", Items: []protocol.Comment{{ID: "c1", User: hana, Text: said.Text}}})
	_, _, _ = ws.Read(ctx) // until the client leaves
}
