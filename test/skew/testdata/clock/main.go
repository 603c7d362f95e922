// Clock prints the time, and how long a short wait took, both by its own clock.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"
)

func main() {
	const wait = 50 * time.Millisecond
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	<-ctx.Done()
	ended := time.Now()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]int64{
		"now":   began.UnixNano(),
		"mono":  int64(ended.Sub(began)),
		"wall":  int64(ended.Round(0).Sub(began.Round(0))),
		"since": int64(time.Since(time.Unix(0, 0)).Truncate(time.Millisecond)),
	})
}
