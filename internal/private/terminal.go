package private

import (
	"io"
	"os"
)

// Terminal reports whether somebody reads on a terminal what is written to w. What goes
// anywhere else may be collected and kept, and secrets do not belong there.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
