#!/bin/bash
# The body is on standard input; what is printed is the answer. Headers are variables: Http_Content_Type, Http_Path.
set -eu
echo "You sent: $(cat)"
