// Pages that are opened from a folder may not read other pages: then search lists titles, without the lines around a word.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
