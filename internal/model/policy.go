package model

import "time"

// Hash says what of a call decides which instance gets it. One of Header, Cookie and SourceIP is set.
type Hash struct {
	// Header in lower case, or :path, :method, :authority.
	Header   string
	Cookie   *HashCookie
	SourceIP bool
	// RingSize is the least number of places on the ring; 0 is the default.
	RingSize uint32
}

// HashCookie is a cookie whose value decides.
type HashCookie struct {
	Name string
	// Given says whether a caller without the cookie gets one, for Path and TTL; a TTL of 0 is as long as the client's session.
	Given bool
	Path  string
	TTL   time.Duration
}
