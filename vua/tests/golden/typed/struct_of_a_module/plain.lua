print "plain runs"
return 1
