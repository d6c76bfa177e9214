"""Run one of the packages beside this one in an isolated interpreter.

``python3 -I isolated.py PACKAGE ARGUMENTS`` is ``python3 -m PACKAGE ARGUMENTS`` without
the environment, the user's site folder and the current folder having a say.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
