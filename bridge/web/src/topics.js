// The topics found in a user's posts, with a few of the posts.

const TOPICS_SHOWN = 24;
const EXAMPLES_SHOWN = 2;

const PROVIDERS = {
  mastodon: "Mastodon",
  bluesky: "Bluesky",
  hackernews: "Hacker News",
  reddit: "Reddit",
  feed: "Feed",
};

export async function readTopics(supabase) {
  const topics = await supabase
    .from("topics")
    .select("id,label,size,keywords,example_post_ids")
    .order("size", { ascending: false })
    .order("label")
    .limit(TOPICS_SHOWN);
  if (topics.error) throw topics.error;
  const ids = topics.data.flatMap((topic) => topic.example_post_ids.slice(0, EXAMPLES_SHOWN));
  const posts = ids.length ? await supabase.from("posts").select("id,content,provider,url").in("id", ids) : { data: [] };
  if (posts.error) throw posts.error;
  const byId = new Map(posts.data.map((post) => [post.id, post]));
  return topics.data.map((topic) => ({
    ...topic,
    examples: topic.example_post_ids.slice(0, EXAMPLES_SHOWN).flatMap((id) => byId.get(id) ?? []),
  }));
}

/** Render the topics; every string in them came from strangers and is set as text. */
export function showTopics(document, topics) {
  const posts = topics.reduce((sum, topic) => sum + topic.size, 0);
  document.getElementById("topics-section").hidden = topics.length === 0;
  document.getElementById("topics-summary").textContent = `${topics.length} found in ${posts} posts`;
  document.getElementById("topics").replaceChildren(...topics.map((topic) => card(document, topic)));
}

function card(document, topic) {
  const item = document.getElementById("topic-template").content.firstElementChild.cloneNode(true);
  item.querySelector("h3").textContent = topic.label;
  item.querySelector(".count").textContent = topic.size === 1 ? "1 post" : `${topic.size} posts`;
  const isNews = (word) => word.toLowerCase() !== topic.label.toLowerCase();
  item.querySelector(".keywords").textContent = topic.keywords.filter(isNews).slice(0, 6).join(" · ");
  item.querySelector(".examples").append(...topic.examples.map((post) => example(document, post)));
  return item;
}

function example(document, post) {
  const item = document.createElement("li");
  const quote = document.createElement("blockquote");
  quote.textContent = post.content.replace(/\n\s*\n/g, "\n");
  const source = document.createElement(isWebAddress(post.url) ? "a" : "span");
  source.className = "source";
  source.textContent = PROVIDERS[post.provider] ?? post.provider;
  if (isWebAddress(post.url)) {
    source.href = post.url;
    source.target = "_blank";
    source.rel = "noopener noreferrer nofollow";
  }
  item.append(quote, source);
  return item;
}

function isWebAddress(url) {
  return URL.canParse(url ?? "") && ["http:", "https:"].includes(new URL(url).protocol);
}
