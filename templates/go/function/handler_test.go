package function

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheAnswerNamesMethodPathAndBody(t *testing.T) {
	answer := httptest.NewRecorder()
	Handle(answer, httptest.NewRequest("POST", "/hello", strings.NewReader("world")))
	if answer.Code != 200 || answer.Body.String() != "POST /hello: world" {
		t.Errorf("got %d %q", answer.Code, answer.Body)
	}
}
