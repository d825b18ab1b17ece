// Package browser tests the pages of idemadmin in a real browser. It is a module of its
// own because of the driver, chromedp.
//
// The tests need Chromium or Chrome. IDEMADMIN_BROWSER names its program if it is not in
// PATH; without one the tests are skipped. IDEMADMIN_SCREENSHOTS names a folder that keeps
// the screenshots.
package browser
