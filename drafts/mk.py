"""python mk.py draft.md notebook PREFIX: START is replaced by the book's first cell."""
import sys,subprocess
sys.path.insert(0,'tools'); import book
src,out,prefix=sys.argv[1:4]
t=open(src).read().replace("\nSTART\n","\n"+book.start().strip()+"\n")
open('_build/draft.md','w').write(t)
subprocess.run([sys.executable,'drafts/nb.py','_build/draft.md',out,prefix],check=True)
