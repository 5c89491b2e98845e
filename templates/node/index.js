"use strict";
// The program of a Node function: it serves HTTP/1.1 itself, so that no other process stands in a call's way.
// Under Stoker it gets a listening socket; without one, as in a container, it listens on `port`.

const { serve } = require("./runtime/serve");

serve(__dirname);
