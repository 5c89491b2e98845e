package function

import (
	"io"
	"net/http"
)

// Handle reads what was sent and answers.
func Handle(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "hello\n")
}
