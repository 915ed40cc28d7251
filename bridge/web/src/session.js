// Who the visitor is: an anonymous user whose session stays in the browser.

/** The session's user; signs in when there is none, or when the project no longer knows it. */
export async function signedIn(supabase) {
  const { data: kept } = await supabase.auth.getSession();
  if (kept.session) {
    const { data, error } = await supabase.auth.getUser();
    if (!error) return data.user;
    const isRefused = error.status >= 400 && error.status < 500 && error.status !== 429;
    if (!isRefused && error.name !== "AuthSessionMissingError") return kept.session.user;
    await supabase.auth.signOut({ scope: "local" });
  }
  const { data, error } = await supabase.auth.signInAnonymously();
  if (error) throw new Error(`Signing in failed: ${error.message}`);
  return data.user;
}
