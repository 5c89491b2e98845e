package runtime

import (
	"context"
	"fmt"
	"time"
)

// Hooks are the optional functions of a handler's package: `func Init() error`, `func Init(context.Context) error` or
// `func Init()`, and the same for Health and Close. Init runs before the first call, Health is asked every so often,
// Close runs after the last call.
type Hooks struct {
	Init, Health, Close any
}

// check refuses hooks of other shapes before anything runs.
func (h Hooks) check() error {
	for name, hook := range map[string]any{"Init": h.Init, "Health": h.Health, "Close": h.Close} {
		switch hook.(type) {
		case nil, func(), func() error, func(context.Context) error:
		default:
			return fmt.Errorf("the hook %s is a %T: write func %s() error", name, hook, name)
		}
	}
	return nil
}

// run calls a hook; a panic in it is an error of it.
func run(ctx context.Context, hook any) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	switch call := hook.(type) {
	case func():
		call()
	case func() error:
		return call()
	case func(context.Context) error:
		return call(ctx)
	}
	return nil
}

// first asks Health before the first call. One bad answer is enough: what starts unhealthy is to get no call.
func first(ctx context.Context, hook any, s settings, say func(reason string)) (sick bool) {
	err := within(ctx, s.healthTimeout, hook)
	if err != nil {
		say(err.Error())
	}
	return err != nil
}

// watch asks Health until the context ends, and says so after some failures in a row, and when it is good again.
func watch(ctx context.Context, hook any, s settings, sick bool, say func(reason string)) {
	failures, successes := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.healthPeriod):
		}
		err := within(ctx, s.healthTimeout, hook)
		if err == nil {
			failures, successes = 0, successes+1
		} else {
			failures, successes = failures+1, 0
		}
		if !sick && failures >= s.healthFaults {
			sick = true
			say(err.Error())
		} else if sick && successes >= s.healthGood {
			sick, successes = false, 0
			say("")
		}
	}
}

// within bounds a hook's time; one that takes longer runs on.
func within(ctx context.Context, timeout time.Duration, hook any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- run(ctx, hook)
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(timeout):
		return fmt.Errorf("Health took longer than %v", timeout)
	}
}
