package function

import (
	"fmt"
	"io"
	"net/http"
)

// Handle answers a call.
func Handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s %s: %s", r.Method, r.URL.Path, body)
}
