package watchlog

import "strings"

// The classes of devices. Nothing else of the device is kept.
const (
	DevicePhone   = "phone"
	DeviceTablet  = "tablet"
	DeviceTV      = "tv"
	DeviceDesktop = "desktop"
	DeviceOther   = "other" // an app, a program, or what says nothing
)

// Device is the class of a device, as far as its user agent tells. One that hides itself is taken for what it claims to be: an
// iPad, by default, for a desktop.
func Device(userAgent string) string {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(userAgent, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("SmartTV", "SMART-TV", "AppleTV", "Apple TV", "GoogleTV", "Android TV", "BRAVIA", "Web0S", "Tizen", "HbbTV", "AFTT"):
		return DeviceTV
	case has("iPad", "Tablet") || has("Android") && !has("Mobile"):
		return DeviceTablet
	case has("iPhone", "iPod", "Mobile", "Android"):
		return DevicePhone
	case has("Windows NT", "Macintosh", "X11", "CrOS", "Linux"):
		return DeviceDesktop
	}
	return DeviceOther
}
