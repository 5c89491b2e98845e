"""The tests that failed, one a line as pytest takes them: `failed.py REPORT MOST`. Exit code 1 for none or too many."""

import sys
import xml.etree.ElementTree as tree

report, most = sys.argv[1], int(sys.argv[2])
cases = tree.parse(report).getroot().iter("testcase")
bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
names = list(dict.fromkeys(f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}" for case in bad))
if not 0 < len(names) <= most:
    sys.exit(f"{len(names)} tests failed")
print("\n".join(names))
