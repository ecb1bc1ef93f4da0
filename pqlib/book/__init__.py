"""Execute the chapters, stage the pages and render the book; used by the command line only."""
