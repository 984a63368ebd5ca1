"""``crier bench``: how fast a bundle speaks here, how near that is to what the memory allows, and what others need.

command    the order of things, and the result
child      a crierd of the bench's own      announcing  what it is measured by, from outside
speaking   the engine in this process       figures     its frames and stages, set against the memory
peers      other programs, in the same run  (peer_programs, peer_llama, peer_transformers)
table, compare, plot                        the result for people
"""
