package redisroster
import ("testing";"time")
func TestZZ(t *testing.T){
	s := dial(t, startProcess(t, freePort(t)))
	def := func(c *Config){ c.Interval,c.Lease,c.Timeout,c.Buckets=0,0,0,0 }
	a, v := s.node(t, def), s.node(t, def)
	here, there := a.open("room"), v.open("room")
	here.Join("ann"); 
	st:=time.Now()
	there.Join("bob"); here.want(t,"x",2,2)
	t.Log("seen after", time.Since(st))
	for i,u := range users(40) { time.Sleep(time.Duration(i*37%1000)*time.Millisecond); st:=time.Now(); there.Join(u); here.want(t,"x",3+i,3+i); t.Log("seen after", time.Since(st)) }
	for _,u := range users(25000) { there.Join("z"+u) }
	st=time.Now(); here.want(t,"x",25042,25042); t.Log("25000 seen after", time.Since(st))
	v.kill(); st=time.Now()
	here.want(t,"gone",1,1)
	t.Log("gone after", time.Since(st))
}
