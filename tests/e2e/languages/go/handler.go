package function

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

var (
	state   string
	mutex   sync.Mutex
	running int
	most    int
)

var routes = map[string]http.HandlerFunc{
	"/echo": func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) },
	"/answer": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-One", "1")
		w.Header().Set("Content-Type", "text/x-test")
		w.WriteHeader(201)
		fmt.Fprint(w, "made")
	},
	"/fail": func(http.ResponseWriter, *http.Request) {
		fmt.Println("about to fail")
		panic("the cause")
	},
	"/stream": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "one\n")
		w.(http.Flusher).Flush()
		time.Sleep(500 * time.Millisecond)
		fmt.Fprint(w, "two\n")
	},
	"/sleep": func(w http.ResponseWriter, r *http.Request) {
		seconds, _ := strconv.ParseFloat(text(r), 64)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		fmt.Fprint(w, "slept")
	},
	"/print": func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(text(r))
		fmt.Fprint(w, "printed")
	},
	"/request": func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode([]string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("X-Test")})
	},
	"/context": func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{
			"function":  os.Getenv("OPENFAAS_NAME"),
			"namespace": os.Getenv("OPENFAAS_NAMESPACE"),
			"call":      r.Header.Get("X-Call-Id"),
			"state":     state,
		})
	},
	"/secret": func(w http.ResponseWriter, r *http.Request) {
		value, err := os.ReadFile(filepath.Join(os.Getenv("STOKER_SECRETS"), "api-key"))
		if err != nil {
			panic(err)
		}
		w.Write(value)
	},
	"/most": func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		running++
		if running > most {
			most = running
		}
		mutex.Unlock()
		time.Sleep(50 * time.Millisecond)
		mutex.Lock()
		running--
		fmt.Fprint(w, most)
		mutex.Unlock()
	},
}

// Handle answers by path.
func Handle(w http.ResponseWriter, r *http.Request) { routes[r.URL.Path](w, r) }

// Init opens.
func Init() error {
	if os.Getenv("FAIL_INIT") != "" {
		return errors.New("no way to begin")
	}
	fmt.Println("opened")
	state = "opened"
	return nil
}

// Health looks for a file.
func Health() error {
	if _, err := os.Stat(os.Getenv("SICK")); err == nil {
		return errors.New("broken on purpose")
	}
	return nil
}

// Close closes.
func Close() { fmt.Println("closed") }

func text(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	return string(body)
}
