package instance

// Pid is the process, for who measures it. It is of use between Boot and Kill.
func (s *Server) Pid() int { return s.cmd.Process.Pid }
