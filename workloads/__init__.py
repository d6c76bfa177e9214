"""Ways of moving a file to a socket, each a program that runs alone.

``python -m zctrace.workloads STRATEGY --file F`` performs one, with a peer that receives and
checks. Standard library only; nothing here knows of the tracer, so that any other
tracer can watch the same program.
"""
