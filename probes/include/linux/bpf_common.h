/* Asked for by BCC's own headers, which use nothing of it. */
